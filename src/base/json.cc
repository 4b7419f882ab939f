#include "base/json.h"

#include <unordered_set>
#include <vector>

namespace hadal {
namespace {

// Builds a Json bottom-up like nlohmann's own DOM builder, with limits it lacks.
class BoundedSax : public nlohmann::json_sax<Json> {
 public:
  explicit BoundedSax(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Frame& frame = stack_.back();
    if (limits_.refuse_duplicate_keys && !frame.seen.insert(name).second) {
      error_ = fmt::format("key \"{}\" appears twice", name);
      return false;
    }
    frame.key = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& what) override {
    // what.what() reads "[json.exception...] parse error at line L, column C: reason".
    const std::string_view text = what.what();
    const size_t colon = text.find(": ");
    error_ = fmt::format("not valid JSON at byte {}: {}", position,
                         colon == std::string_view::npos ? text : text.substr(colon + 2));
    return false;
  }

  Json take_root() { return std::move(root_); }
  const std::string& error() const { return error_; }

 private:
  struct Frame {
    Json value;
    std::string key;                       // of the member being read, objects only
    std::unordered_set<std::string> seen;  // filled only when duplicates are refused
  };

  bool open(Json container) {
    if (static_cast<int>(stack_.size()) >= limits_.max_depth) {
      error_ = fmt::format("nested deeper than {} levels", limits_.max_depth);
      return false;
    }
    stack_.push_back({std::move(container), {}, {}});
    return true;
  }

  bool close() {
    Json done = std::move(stack_.back().value);
    stack_.pop_back();
    return add(std::move(done));
  }

  template <typename T>
  bool add(T&& value) {
    if (++num_values_ > limits_.max_values) {
      error_ = fmt::format("more than {} values", limits_.max_values);
      return false;
    }
    if (stack_.empty()) {
      root_ = std::forward<T>(value);
    } else if (Frame& frame = stack_.back(); frame.value.is_array()) {
      frame.value.push_back(Json(std::forward<T>(value)));
    } else if (limits_.refuse_duplicate_keys) {
      // The key is known to be new, so skip ordered_map's linear search.
      frame.value.get_ref<Json::object_t&>().Json::object_t::Container::emplace_back(std::move(frame.key),
                                                                                    Json(std::forward<T>(value)));
    } else {
      frame.value[std::move(frame.key)] = std::forward<T>(value);
    }
    return true;
  }

  const JsonLimits& limits_;
  std::vector<Frame> stack_;
  size_t num_values_ = 0;
  Json root_;
  std::string error_;
};

}  // namespace

Expected<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return make_error(ErrorCode::kCorrupt, "JSON of {} bytes, at most {} accepted", text.size(), limits.max_bytes);
  }
  BoundedSax sax(limits);
  if (!Json::sax_parse(text.begin(), text.end(), &sax)) {
    return make_error(ErrorCode::kCorrupt, "{}", sax.error().empty() ? "not valid JSON" : sax.error());
  }
  return sax.take_root();
}

std::string dump_json(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace hadal
