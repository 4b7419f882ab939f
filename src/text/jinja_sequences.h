// Filters over lists and dicts, for the table in jinja_filters.cc.
#pragma once

#include "base/status.h"
#include "text/jinja_filters.h"
#include "text/jinja_value.h"

namespace hadal::jinja {

Expected<Value> filter_length(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_list(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_first(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_last(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_reverse(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_join(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_items(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_sort(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_dictsort(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_unique(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_map(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_select(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_reject(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_selectattr(const Value& input, const Arguments& arguments, Runtime& runtime);
Expected<Value> filter_rejectattr(const Value& input, const Arguments& arguments, Runtime& runtime);

}  // namespace hadal::jinja
