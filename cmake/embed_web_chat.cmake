# cmake -D FOLDER=src/server/web -D OUT=web_chat_page.cc -P embed_web_chat.cmake
#
# Puts chat.html, its style and its scripts into one C++ file: the page and its Content-Security-Policy, which names
# style and script by their SHA-256.
cmake_minimum_required(VERSION 3.22)

set(scripts words api store markdown view dialogs page conversation ready chat)

# Hexadecimal digits to base64, as CSP writes hashes.
function(base64 hex out)
  set(alphabet "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  set(text "")
  string(LENGTH "${hex}" num_digits)
  set(at 0)
  while(at LESS num_digits)
    string(SUBSTRING "${hex}" ${at} 6 part)  # three bytes, or what is left
    string(LENGTH "${part}" part_digits)
    math(EXPR num_bytes "${part_digits} / 2")
    string(APPEND part "0000")
    string(SUBSTRING "${part}" 0 6 part)
    math(EXPR value "0x${part}")
    foreach(i RANGE 3)
      if(i GREATER num_bytes)
        string(APPEND text "=")
      else()
        math(EXPR digit "(${value} >> (18 - 6 * ${i})) & 63")
        string(SUBSTRING "${alphabet}" ${digit} 1 letter)
        string(APPEND text "${letter}")
      endif()
    endforeach()
    math(EXPR at "${at} + 6")
  endwhile()
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

function(hash_source text out)
  string(SHA256 hex "${text}")
  base64("${hex}" hash)
  set(${out} "'sha256-${hash}'" PARENT_SCOPE)
endfunction()

file(READ "${FOLDER}/chat.html" page)
file(READ "${FOLDER}/chat.css" style)
set(script "\"use strict\";\n")
foreach(name IN LISTS scripts)
  file(READ "${FOLDER}/${name}.js" part)
  string(APPEND script "\n${part}")
endforeach()
hash_source("${style}" style_hash)
hash_source("${script}" script_hash)
string(REPLACE "@CHAT_STYLE@" "${style}" page "${page}")
string(REPLACE "@CHAT_SCRIPT@" "${script}" page "${page}")
string(CONCAT policy "default-src 'none'; script-src ${script_hash}; style-src ${style_hash}; img-src data:; "
       "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
       "require-trusted-types-for 'script'; trusted-types 'none'")

set(delimiter "hadal_page")
if(page MATCHES "\\)${delimiter}\"")
  message(FATAL_ERROR "the page contains )${delimiter}\", which ends a raw string")
endif()
file(WRITE "${OUT}" "#include \"server/web_routes.h\"

namespace hadal {

const std::string_view kWebChatPolicy = \"${policy}\";
const std::string_view kWebChatPage = R\"${delimiter}(${page})${delimiter}\";

}  // namespace hadal
")
