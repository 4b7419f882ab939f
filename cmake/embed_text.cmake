# cmake -D TEXT=hadal_ray.py -D HEADER=cli/launch_ray.h -D NAME=kRayHelper -D OUT=ray_helper.cc -P embed_text.cmake
#
# Puts a text file into a C++ file that defines what HEADER declares: extern const std::string_view NAME.
cmake_minimum_required(VERSION 3.22)

file(READ "${TEXT}" text)
set(delimiter "hadal_text")
if(text MATCHES "\\)${delimiter}\"")
  message(FATAL_ERROR "${TEXT} contains )${delimiter}\", which ends a raw string")
endif()
file(WRITE "${OUT}" "#include \"${HEADER}\"

namespace hadal {

const std::string_view ${NAME} = R\"${delimiter}(${text})${delimiter}\";

}  // namespace hadal
")
