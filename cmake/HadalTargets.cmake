include(CMakeParseArguments)

# hadal_library(base SRCS a.cc b.cc DEPS tensor PUBLIC_LIBS fmt::fmt PRIVATE_LIBS PkgConfig::HWLOC TESTS a_test.cc)
#
# One library per folder of src/: target hadal_<name>. DEPS are other folders (the declared layer edges, see
# tools/check_layers), *_LIBS are third-party targets. TESTS become one binary <name>_test, ctest name unit.<name>.
function(hadal_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS;PUBLIC_LIBS;PRIVATE_LIBS;TESTS" ${ARGN})
  add_library(hadal_${name} STATIC ${ARG_SRCS})
  list(TRANSFORM ARG_DEPS PREPEND hadal_ OUTPUT_VARIABLE deps)
  target_link_libraries(hadal_${name} PUBLIC hadal_options ${deps} ${ARG_PUBLIC_LIBS} PRIVATE ${ARG_PRIVATE_LIBS})
  if(ARG_TESTS)
    hadal_test(unit.${name} SRCS ${ARG_TESTS} DEPS ${name} LIBS ${ARG_PRIVATE_LIBS})
  endif()
endfunction()

# hadal_test(golden.tokenizer SRCS x_test.cc DEPS text LIBS ... [ARGS --gtest_filter=..] [TIMEOUT s])
# A GoogleTest binary and its ctest entry. The binary is called <name with dots as underscores>_test.
function(hadal_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LIBS;ARGS" ${ARGN})
  string(REPLACE "." "_" target ${name}_test)
  add_executable(${target} ${ARG_SRCS})
  list(TRANSFORM ARG_DEPS PREPEND hadal_ OUTPUT_VARIABLE deps)
  target_link_libraries(${target} PRIVATE ${deps} hadal_test_support ${ARG_LIBS} GTest::gmock GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${target} ${ARG_ARGS})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()

# hadal_fuzzer(safetensors DEPS formats): tests/fuzz/<name>_fuzz.cc with LLVMFuzzerTestOneInput.
# In every build it replays corpus/<name> (ctest fuzz.<name>); with HADAL_LIBFUZZER it is a libFuzzer binary.
function(hadal_fuzzer name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS" ${ARGN})
  list(TRANSFORM ARG_DEPS PREPEND hadal_ OUTPUT_VARIABLE deps)
  set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name})
  if(HADAL_LIBFUZZER)
    add_executable(fuzz_${name} ${name}_fuzz.cc)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    set(replay_args -runs=0)
  else()
    add_executable(fuzz_${name} ${name}_fuzz.cc replay_main.cc)
  endif()
  target_link_libraries(fuzz_${name} PRIVATE ${deps} hadal_options ${ARG_LIBS})
  add_test(NAME fuzz.${name} COMMAND fuzz_${name} ${replay_args} ${corpus})
endfunction()
