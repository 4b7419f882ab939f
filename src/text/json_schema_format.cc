#include "text/json_schema_format.h"

#include <functional>
#include <vector>

namespace hadal {
namespace {

// RFC 3339, with the days that the months have and no leap seconds.
std::string date() {
  const std::string year = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)";
  const std::string by_four = "(?:0[48]|[2468][048]|[13579][26])";
  const std::string days = "(?:0[1-9]|1[0-9]|2[0-8])";
  return fmt::format(
      "(?:{0}-(?:(?:0[13578]|1[02])-(?:{2}|29|3[01]|30)|(?:0[469]|11)-(?:{2}|29|30)|02-{2})|"
      "(?:[0-9]{{2}}{1}|{1}00)-02-29)",
      year, by_four, days);
}

std::string time_of_day() {
  const std::string hour_minute = "(?:[01][0-9]|2[0-3]):[0-5][0-9]";
  return fmt::format(R"({0}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{0}))", hour_minute);
}

std::string duration() {
  const std::string n = "[0-9]{1,9}";
  const std::string time = fmt::format("T(?:{0}H(?:{0}M(?:{0}S)?)?|{0}M(?:{0}S)?|{0}S)", n);
  const std::string date = fmt::format("(?:{0}Y(?:{0}M(?:{0}D)?)?|{0}M(?:{0}D)?|{0}D)", n);
  return fmt::format("P(?:{}(?:{})?|{}|{}W)", date, time, time, n);
}

std::string label() { return "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?"; }
std::string hostname() { return fmt::format(R"({0}(?:\.{0}){{0,4}})", label()); }

std::string email() {
  const std::string atom = "[A-Za-z0-9_+-]{1,20}";
  return fmt::format(R"({0}(?:\.{0}){{0,2}}@{1}(?:\.{1}){{0,3}}\.[A-Za-z]{{2,24}})", atom, label());
}

std::string ipv4() {
  const std::string octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  return fmt::format(R"({0}\.{0}\.{0}\.{0})", octet);
}

std::string ipv6() {
  const std::string h = "[0-9A-Fa-f]{1,4}";
  std::string regex = fmt::format("(?:(?:{0}:){{7}}{0}|(?:{0}:){{1,7}}:|:(?::{0}){{1,7}}", h);
  for (int before = 1; before <= 6; ++before) {
    regex += fmt::format("|(?:{0}:){{{1}}}(?::{0}){{1,{2}}}", h, before, 7 - before);
  }
  return regex + "|::)";
}

std::string path_character() { return "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"; }
std::string path_query_fragment() {
  return fmt::format(R"((?:/{0}*)*(?:\?(?:{0}|[/?])*)?(?:#(?:{0}|[/?])*)?)", path_character());
}
std::string uri() {
  return fmt::format("[A-Za-z][A-Za-z0-9+.-]{{0,15}}://{}(?::[0-9]{{1,4}})?{}", hostname(), path_query_fragment());
}

std::string uuid() {
  const std::string h = "[0-9A-Fa-f]";
  return fmt::format("{0}{{8}}-{0}{{4}}-{0}{{4}}-{0}{{4}}-{0}{{12}}", h);
}

struct Format {
  std::string_view name;
  std::function<std::string()> regex;
};
const std::vector<Format>& formats() {
  static const std::vector<Format> table = {
      {"date", date},
      {"time", time_of_day},
      {"date-time", [] { return date() + "T" + time_of_day(); }},
      {"duration", duration},
      {"email", email},
      {"hostname", hostname},
      {"ipv4", ipv4},
      {"ipv6", ipv6},
      {"uri", uri},
      {"uri-reference", [] { return fmt::format("(?:{}|{})", uri(), path_query_fragment()); }},
      {"uuid", uuid},
      {"json-pointer", [] { return std::string("(?:/(?:[^~/]|~[01])*)*"); }},
  };
  return table;
}

}  // namespace

Expected<std::string> json_format_regex(std::string_view format) {
  std::string names;
  for (const Format& known : formats()) {
    if (known.name == format) return known.regex();
    names += fmt::format("{}{}", names.empty() ? "" : ", ", known.name);
  }
  return make_error(ErrorCode::kUnsupported, "format \"{}\" is not supported, these are: {}", format, names);
}

}  // namespace hadal
