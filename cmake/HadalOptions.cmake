# Flags for every target of the project, as one interface library.

add_library(hadal_options INTERFACE)
target_include_directories(hadal_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
# Contraction would let the same expression round differently in two inlined copies; kernels ask for FMA by name.
target_compile_options(hadal_options INTERFACE -Wall -Wextra -Wno-missing-field-initializers -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  target_compile_options(hadal_options INTERFACE -Wno-restrict)  # GCC 12 sees overlaps in std::string that are none
endif()
if(HADAL_WERROR)
  target_compile_options(hadal_options INTERFACE -Werror)
endif()

if(HADAL_SANITIZE)
  target_compile_options(hadal_options INTERFACE -fsanitize=${HADAL_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(hadal_options INTERFACE -fsanitize=${HADAL_SANITIZE})
  if(HADAL_SANITIZE MATCHES thread AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(hadal_options INTERFACE -Wno-tsan)  # asio uses atomic_thread_fence
  endif()
  if(HADAL_SANITIZE MATCHES undefined)
    target_compile_options(hadal_options INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()
