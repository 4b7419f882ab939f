#include "text/jinja_json.h"

namespace hadal::jinja {

Expected<Value> from_json(const Json& json, Budget& budget) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value(json.get<bool>());
    case Json::value_t::number_integer:
      return Value(Integer{json.get<int64_t>()});
    case Json::value_t::number_unsigned:
      return Value(Integer{json.get<uint64_t>()});
    case Json::value_t::number_float:
      return Value(json.get<double>());
    case Json::value_t::string: {
      const std::string& text = json.get_ref<const std::string&>();
      HADAL_RETURN_IF_ERROR(budget.spend_bytes(text.size()));
      return Value(text);
    }
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& entry : json) {
        HADAL_ASSIGN_OR_RETURN(Value item, from_json(entry, budget));
        items.push_back(std::move(item));
      }
      return make_list(std::move(items), false, budget);
    }
    case Json::value_t::object: {
      std::vector<std::pair<std::string, Value>> items;
      items.reserve(json.size());
      for (auto entry = json.begin(); entry != json.end(); ++entry) {
        HADAL_ASSIGN_OR_RETURN(Value item, from_json(entry.value(), budget));
        items.emplace_back(entry.key(), std::move(item));
      }
      return make_dict(std::move(items), budget);
    }
    default:
      return Value();
  }
}

}  // namespace hadal::jinja
