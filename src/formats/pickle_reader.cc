#include <cstdint>
#include <cstring>
#include <unordered_set>
#include <vector>

#include "formats/message_text.h"
#include "formats/pickle.h"
#include "formats/pickle_machine.h"

namespace hadal {
namespace {

// A pickle's values as JSON. They may be shared and contain each other: depth and total are bounded.
class Converter {
 public:
  Converter(const PickleValues& pickle, const PickleLimits& limits) : pickle_(pickle), limits_(limits) {}

  Expected<Json> root() {
    const PickleValue& value = at(pickle_.root);
    if (value.kind != PickleKind::kArray || !value.is_built || dtype(value) != "O8") {
      return make_error(ErrorCode::kUnsupported, "pickle holds a {}, expected an array of objects",
                        pickle_kind_name(value.kind));
    }
    const PickleValue& shape = at(value.items[0]);
    const PickleValue& payload = at(value.items[2]);
    if (!shape.items.empty() || payload.kind != PickleKind::kList || payload.items.size() != 1) {
      return make_error(ErrorCode::kUnsupported, "pickle holds an array of objects that is not 0-dimensional");
    }
    return json(payload.items[0], 0);
  }

 private:
  const PickleValue& at(PickleRef ref) const { return pickle_.values[ref]; }
  std::string_view dtype(const PickleValue& array) const { return at(array.items[1]).text; }

  Status count() {
    if (++num_values_ > limits_.max_values) {
      return make_error(ErrorCode::kResourceExhausted, "pickle unfolds to more than {} values", limits_.max_values);
    }
    return {};
  }

  Expected<Json> json(PickleRef ref, int depth) {
    HADAL_RETURN_IF_ERROR(count());
    if (depth > limits_.max_depth) {
      return make_error(ErrorCode::kCorrupt, "pickle: nested deeper than {} levels", limits_.max_depth);
    }
    const PickleValue& value = at(ref);
    switch (value.kind) {
      case PickleKind::kNone:
        return Json(nullptr);
      case PickleKind::kBool:
        return Json(value.number != 0);
      case PickleKind::kInt:
        return Json(value.number);
      case PickleKind::kString:
        return Json(std::string(value.text));
      case PickleKind::kList:
      case PickleKind::kTuple:
        return list(value, depth);
      case PickleKind::kDict:
        return object(value, depth);
      case PickleKind::kArray:
        return array(value);
      default:
        break;
    }
    return make_error(ErrorCode::kUnsupported, "pickle: a {} among the data", pickle_kind_name(value.kind));
  }

  Expected<Json> list(const PickleValue& value, int depth) {
    Json out = Json::array();
    for (const PickleRef item : value.items) {
      HADAL_ASSIGN_OR_RETURN(Json element, json(item, depth + 1));
      out.push_back(std::move(element));
    }
    return out;
  }

  Expected<Json> object(const PickleValue& value, int depth) {
    Json out = Json::object();
    auto& members = out.get_ref<Json::object_t&>();
    std::unordered_set<std::string> seen;
    for (size_t i = 0; i < value.items.size(); i += 2) {
      const PickleValue& key = at(value.items[i]);
      if (key.kind != PickleKind::kString && key.kind != PickleKind::kInt) {
        return make_error(ErrorCode::kUnsupported, "pickle: a dict key of type {}", pickle_kind_name(key.kind));
      }
      std::string name = key.kind == PickleKind::kInt ? std::to_string(key.number) : std::string(key.text);
      if (!seen.insert(name).second) {
        return make_error(ErrorCode::kCorrupt, "pickle: key {} appears twice", quote_name(name));
      }
      HADAL_ASSIGN_OR_RETURN(Json member, json(value.items[i + 1], depth + 1));
      // The key is new, so skip ordered_map's linear search.
      members.Json::object_t::Container::emplace_back(std::move(name), std::move(member));
    }
    return out;
  }

  Expected<Json> array(const PickleValue& value) {
    if (!value.is_built) return make_error(ErrorCode::kCorrupt, "pickle: an array without state");
    if (dtype(value) == "O8") return make_error(ErrorCode::kUnsupported, "pickle: an array of objects among the data");
    const size_t item_bytes = dtype(value) == "f8" ? 8 : 4;
    const PickleValue& payload = at(value.items[2]);
    if (payload.kind != PickleKind::kBytes) {
      return make_error(ErrorCode::kCorrupt, "pickle: an array's payload is a {}", pickle_kind_name(payload.kind));
    }
    const std::vector<PickleRef>& dims = at(value.items[0]).items;
    if (dims.empty() || dims.size() > 4) {
      return make_error(ErrorCode::kUnsupported, "pickle: a float array of rank {}, expected 1 to 4", dims.size());
    }
    std::vector<size_t> shape;
    size_t num_bytes = item_bytes;  // at most 255^4 * 8
    for (const PickleRef dim : dims) {
      const PickleValue& size = at(dim);
      if (size.kind != PickleKind::kInt || size.number < 1 || size.number > 255) {
        return make_error(ErrorCode::kUnsupported, "pickle: a float array with a dimension that is not 1 to 255");
      }
      shape.push_back(static_cast<size_t>(size.number));
      num_bytes *= shape.back();
    }
    if (num_bytes != payload.text.size()) {
      return make_error(ErrorCode::kCorrupt, "pickle: {} bytes for a float array of {}", payload.text.size(),
                        num_bytes);
    }
    std::string_view rest = payload.text;
    return floats(shape, item_bytes, rest);
  }

  Expected<Json> floats(std::span<const size_t> shape, size_t item_bytes, std::string_view& rest) {
    HADAL_RETURN_IF_ERROR(count());
    if (shape.empty()) {
      double number = 0;
      if (item_bytes == 4) {
        float f32 = 0;
        std::memcpy(&f32, rest.data(), sizeof f32);
        number = static_cast<double>(f32);
      } else {
        std::memcpy(&number, rest.data(), sizeof number);
      }
      rest.remove_prefix(item_bytes);
      return Json(number);
    }
    Json out = Json::array();
    for (size_t i = 0; i < shape[0]; ++i) {
      HADAL_ASSIGN_OR_RETURN(Json element, floats(shape.subspan(1), item_bytes, rest));
      out.push_back(std::move(element));
    }
    return out;
  }

  const PickleValues& pickle_;
  const PickleLimits& limits_;
  size_t num_values_ = 0;
};

}  // namespace

Expected<Json> object_array_from_pickle(std::string_view bytes, const PickleLimits& limits) {
  HADAL_ASSIGN_OR_RETURN(const PickleValues pickle, run_pickle(bytes, limits));
  return Converter(pickle, limits).root();
}

}  // namespace hadal
