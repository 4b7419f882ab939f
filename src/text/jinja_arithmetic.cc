#include <cmath>

#include "text/jinja_value.h"

namespace hadal::jinja {
namespace {

Expected<Value> in_range(bool overflowed, Integer value) {
  if (overflowed || value < kMinInteger || value > kMaxInteger) {
    return template_error("integer result out of range");
  }
  return Value(value);
}

Integer floor_divide(Integer a, Integer b) {
  const Integer quotient = a / b;
  return quotient * b != a && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Expected<Value> integer_power(Integer base, Integer exponent) {
  if (exponent < 0) return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  Integer result = 1;
  // 0, 1 and -1 to any power stay small; everything else overflows within 64 rounds.
  if (base >= -1 && base <= 1) exponent = exponent > 1 ? 2 + exponent % 2 : exponent;
  for (Integer i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result) || result < kMinInteger || result > kMaxInteger) {
      return in_range(true, 0);
    }
  }
  return Value(result);
}

Expected<Value> integer_op(char op, bool is_double, Integer a, Integer b) {
  if ((op == '/' || op == '%') && b == 0) return template_error("division by zero");
  Integer result = 0;
  bool overflowed = false;
  switch (op) {
    case '+':
      overflowed = __builtin_add_overflow(a, b, &result);
      break;
    case '-':
      overflowed = __builtin_sub_overflow(a, b, &result);
      break;
    case '*':
      if (is_double) return integer_power(a, b);
      overflowed = __builtin_mul_overflow(a, b, &result);
      break;
    case '/':
      if (!is_double) return Value(static_cast<double>(a) / static_cast<double>(b));
      result = floor_divide(a, b);
      break;
    default:
      result = a - floor_divide(a, b) * b;
  }
  return in_range(overflowed, result);
}

Expected<Value> float_op(char op, bool is_double, double a, double b) {
  if ((op == '/' || op == '%') && b == 0) return template_error("float division by zero");
  switch (op) {
    case '+':
      return Value(a + b);
    case '-':
      return Value(a - b);
    case '*':
      return Value(is_double ? std::pow(a, b) : a * b);
    case '/':
      return Value(is_double ? std::floor(a / b) : a / b);
    default:
      return Value(a - std::floor(a / b) * b);
  }
}

Expected<Value> repeat(const Value& value, Integer count, Budget& budget) {
  const size_t times = count <= 0 ? 0 : static_cast<size_t>(std::min<Integer>(count, INT32_MAX));
  if (value.is_string()) {
    const std::string& unit = value.as_string();
    HADAL_RETURN_IF_ERROR(budget.spend_bytes(unit.size() * times));
    std::string text;
    if (!unit.empty()) {
      text.reserve(unit.size() * times);
      for (size_t i = 0; i < times; ++i) text += unit;
    }
    return Value(std::move(text));
  }
  const ListData& list = value.as_list();
  HADAL_RETURN_IF_ERROR(budget.spend_steps(list.items.size() * times));
  std::vector<Value> items;
  if (!list.items.empty()) {
    for (size_t i = 0; i < times; ++i) items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return make_list(std::move(items), list.is_tuple, budget);
}

Expected<Value> concatenate(const Value& a, const Value& b, Budget& budget) {
  if (a.is_string()) {
    HADAL_RETURN_IF_ERROR(budget.spend_bytes(a.as_string().size() + b.as_string().size()));
    return Value(a.as_string() + b.as_string());
  }
  std::vector<Value> items = a.as_list().items;
  items.insert(items.end(), b.as_list().items.begin(), b.as_list().items.end());
  return make_list(std::move(items), a.as_list().is_tuple, budget);
}

}  // namespace

Expected<Value> arithmetic(std::string_view op, const Value& a, const Value& b, Budget& budget) {
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) return template_error("{}", value->undefined_message());
  }
  const char first = op[0];
  const bool is_double = op.size() == 2;
  if (a.is_integral() && b.is_integral()) return integer_op(first, is_double, a.as_integer(), b.as_integer());
  if (a.is_number() && b.is_number()) return float_op(first, is_double, a.as_double(), b.as_double());
  const auto is_sequence = [](const Value& value) { return value.is_string() || value.is(Value::Kind::kList); };
  if (op == "+" && is_sequence(a)) {
    if (type_name(a) == type_name(b)) return concatenate(a, b, budget);
    return template_error("can only concatenate {0} (not \"{1}\") to {0}", type_name(a), type_name(b));
  }
  if (op == "*" && is_sequence(a) && b.is_integral()) return repeat(a, b.as_integer(), budget);
  if (op == "*" && is_sequence(b) && a.is_integral()) return repeat(b, a.as_integer(), budget);
  if (op == "%" && a.is_string()) return template_error("formatting with % is not supported");
  return template_error("unsupported operand type(s) for {}: '{}' and '{}'", op, type_name(a), type_name(b));
}

}  // namespace hadal::jinja
