#include "formats/python_json.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <string_view>

namespace hadal {
namespace {

void append(std::string& out, const Json& value, int depth);

void append_break(std::string& out, int depth) {
  out += '\n';
  out.append(static_cast<size_t>(depth) * 4, ' ');
}

void append_array(std::string& out, const Json& value, int depth) {
  out += '[';
  for (size_t i = 0; i < value.size(); ++i) {
    if (i > 0) out += ',';
    append_break(out, depth + 1);
    append(out, value[i], depth + 1);
  }
  if (!value.empty()) append_break(out, depth);
  out += ']';
}

void append_object(std::string& out, const Json& value, int depth) {
  out += '{';
  bool is_first = true;
  for (const auto& [key, member] : value.items()) {
    if (!is_first) out += ',';
    is_first = false;
    append_break(out, depth + 1);
    out += Json(key).dump(-1, ' ', true, Json::error_handler_t::replace);
    out += ": ";
    append(out, member, depth + 1);
  }
  if (!value.empty()) append_break(out, depth);
  out += '}';
}

void append(std::string& out, const Json& value, int depth) {
  if (value.is_array()) return append_array(out, value, depth);
  if (value.is_object()) return append_object(out, value, depth);
  out += value.is_number_float() ? python_float(value.get<double>())
                                 : value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace

std::string python_float(double value) {
  std::array<char, 32> buffer;
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific).ptr;
  std::string_view text(buffer.data(), static_cast<size_t>(end - buffer.data()));
  const size_t e = text.find('e');
  if (e == std::string_view::npos) return std::string(text);  // inf, nan
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) return std::string(text);
  std::string out = text.front() == '-' ? "-" : "";
  if (text.front() == '-') text.remove_prefix(1);
  std::string digits(1, text[0]);
  if (text.size() > 1 && text[1] == '.') digits += text.substr(2, text.find('e') - 2);
  const auto point = static_cast<size_t>(exponent < 0 ? 1 : exponent + 1);
  if (exponent < 0) digits.insert(0, static_cast<size_t>(-exponent), '0');
  if (digits.size() <= point) digits.append(point - digits.size() + 1, '0');
  return out + digits.substr(0, point) + "." + digits.substr(point);
}

std::string python_json(const Json& value) {
  std::string out;
  append(out, value, 0);
  return out;
}

}  // namespace hadal
