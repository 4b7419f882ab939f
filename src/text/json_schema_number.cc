#include "text/json_schema_number.h"

#include <algorithm>
#include <optional>

namespace hadal {
namespace {

using Expr = GrammarBuilder::Expr;

constexpr int kMaxIntegerDigits = 18;
constexpr int64_t kMaxInteger = 999'999'999'999'999'999;
// Decimals of up to 15 significant digits are told apart by a double, so that a reader's comparison agrees with ours.
constexpr int kMaxBoundedIntegerDigits = 9, kMaxBoundedFractionDigits = 6;
constexpr int64_t kMaxMultipleOf = 1000;
constexpr int64_t kMaxListedMultiples = 10'000;
constexpr int kMaxMultipleDigits = 9;

// Sign, digits before the point without leading zeros ("0" at least), digits behind it without trailing zeros.
struct Decimal {
  bool is_negative = false;
  std::string integer, fraction;
};

Decimal to_decimal(const Json& number) {
  std::string text = number.dump();
  Decimal result;
  if (text[0] == '-') result.is_negative = true, text.erase(0, 1);
  int exponent = 0;
  if (const size_t e = text.find_first_of("eE"); e != std::string::npos) {
    exponent = std::stoi(text.substr(e + 1));  // of a double: small
    text.resize(e);
  }
  const size_t point = std::min(text.find('.'), text.size());
  std::string digits = text.substr(0, point) + (point < text.size() ? text.substr(point + 1) : "");
  int num_before = static_cast<int>(point) + exponent;
  if (num_before < 0) digits.insert(0, static_cast<size_t>(-num_before), '0'), num_before = 0;
  if (digits.size() < static_cast<size_t>(num_before)) digits.resize(static_cast<size_t>(num_before), '0');
  result.integer = digits.substr(0, static_cast<size_t>(num_before));
  result.fraction = digits.substr(static_cast<size_t>(num_before));
  result.integer.erase(0, std::min(result.integer.find_first_not_of('0'), result.integer.size()));
  if (result.integer.empty()) result.integer = "0";
  result.fraction.resize(result.fraction.find_last_not_of('0') + 1);
  if (result.integer == "0" && result.fraction.empty()) result.is_negative = false;
  return result;
}

// -1, 0 or 1.
int compare(const Decimal& a, const Decimal& b) {
  if (a.is_negative != b.is_negative) return a.is_negative ? -1 : 1;
  int order = a.integer.size() != b.integer.size() ? (a.integer.size() < b.integer.size() ? -1 : 1)
                                                   : a.integer.compare(b.integer);
  if (order == 0) order = a.fraction.compare(b.fraction);
  order = order < 0 ? -1 : order > 0 ? 1 : 0;
  return a.is_negative ? -order : order;
}

struct Bound {
  Decimal value;
  bool is_strict = false;
};
struct Bounds {
  std::optional<Bound> low, high;
};

void tighten(std::optional<Bound>& bound, Bound other, int direction) {
  const int order = bound ? direction * compare(other.value, bound->value) : 1;
  if (order > 0) {
    bound = std::move(other);
  } else if (order == 0) {
    bound->is_strict |= other.is_strict;
  }
}

Status read_side(const Json& schema, const char* inclusive, const char* exclusive, int direction,
                 std::optional<Bound>& bound) {
  bool is_strict = false;
  if (const auto found = schema.find(exclusive); found != schema.end()) {
    if (found->is_boolean()) {
      is_strict = found->get<bool>();
    } else if (found->is_number()) {
      tighten(bound, {to_decimal(*found), true}, direction);
    } else {
      return make_error(ErrorCode::kInvalidArgument, "{} must be a number", exclusive);
    }
  }
  if (const auto found = schema.find(inclusive); found != schema.end()) {
    if (!found->is_number()) return make_error(ErrorCode::kInvalidArgument, "{} must be a number", inclusive);
    tighten(bound, {to_decimal(*found), is_strict}, direction);
  }
  return {};
}

Expected<Bounds> read_bounds(const Json& schema) {
  Bounds bounds;
  HADAL_RETURN_IF_ERROR(read_side(schema, "minimum", "exclusiveMinimum", 1, bounds.low));
  HADAL_RETURN_IF_ERROR(read_side(schema, "maximum", "exclusiveMaximum", -1, bounds.high));
  return bounds;
}

// The smallest integer that satisfies a lower bound, within +-(kMaxInteger + 1).
int64_t first_integer(const Bound& bound) {
  const Decimal& value = bound.value;
  if (value.integer.size() > kMaxIntegerDigits) return value.is_negative ? -kMaxInteger - 1 : kMaxInteger + 1;
  const int64_t magnitude = std::stoll(value.integer);
  if (!value.fraction.empty()) return value.is_negative ? -magnitude : magnitude + 1;
  return (value.is_negative ? -magnitude : magnitude) + (bound.is_strict ? 1 : 0);
}
int64_t last_integer(Bound bound) {
  const bool is_zero = bound.value.integer == "0" && bound.value.fraction.empty();
  bound.value.is_negative = !bound.value.is_negative && !is_zero;
  return -first_integer(bound);
}

// Digit strings that compare between `low` and `high`: either may be absent; both continue with zeros. Used for digits
// of one length (integers) and for digits behind the point.
class DigitRange {
 public:
  using Text = std::optional<std::string_view>;
  DigitRange(GrammarBuilder& builder, bool low_is_strict, bool high_is_strict)
      : builder_(builder), low_is_strict_(low_is_strict), high_is_strict_(high_is_strict) {}

  // `exact`: with `length` digits, otherwise with 1 to `length`.
  Expr digits(const Text& low, const Text& high, int length, bool exact) {
    if (length == 0) return GrammarBuilder::kNothing;
    const Expr digit = builder_.bytes('0', '9');
    if (!low && !high)
      return builder_.repeat(digit, exact ? static_cast<uint32_t>(length) : 1, static_cast<uint32_t>(length));
    const char first = low && !low->empty() ? low->front() : '0';
    const char last = !high ? '9' : high->empty() ? '0' : high->front();
    std::vector<Expr> alternatives;
    if (first > last) return GrammarBuilder::kNothing;
    const auto add = [&](char from, char to, const Text& low_rest, const Text& high_rest) {
      if (from > to) return;
      const Expr rest = digits(low_rest, high_rest, length - 1, exact);
      const bool may_end = exact ? length == 1 : may_end_here(low_rest, high_rest);
      const Expr tail =
          may_end ? (rest == GrammarBuilder::kNothing ? GrammarBuilder::kEmpty : builder_.optional(rest)) : rest;
      alternatives.push_back(
          builder_.sequence({builder_.bytes(static_cast<uint8_t>(from), static_cast<uint8_t>(to)), tail}));
    };
    const Text low_rest = rest_of(low), high_rest = rest_of(high);
    if (low && high && first == last) {
      add(first, first, low_rest, high_rest);
    } else {
      if (low) add(first, first, low_rest, {});
      add(static_cast<char>(first + (low ? 1 : 0)), static_cast<char>(last - (high ? 1 : 0)), {}, {});
      if (high) add(last, last, {}, high_rest);
    }
    return builder_.choice(std::move(alternatives));
  }

  bool may_end_here(const Text& low, const Text& high) const {
    return (!low || (low->empty() && !low_is_strict_)) && (!high || !high->empty() || !high_is_strict_);
  }

 private:
  static Text rest_of(const Text& text) { return text && !text->empty() ? Text(text->substr(1)) : text; }

  GrammarBuilder& builder_;
  const bool low_is_strict_, high_is_strict_;
};

// Integers from low to high, both at least 0.
Expr natural_range(GrammarBuilder& builder, int64_t low, int64_t high) {
  std::vector<Expr> alternatives;
  for (int64_t first = 0, last = 9; first <= high;) {
    const int64_t from = std::max(low, first), to = std::min(high, last);
    if (from <= to) {
      const std::string from_text = std::to_string(from), to_text = std::to_string(to);
      const int length = static_cast<int>(from_text.size());
      alternatives.push_back(DigitRange(builder, false, false).digits(from_text, to_text, length, true));
    }
    if (last >= kMaxInteger) break;
    first = last + 1;
    last = last * 10 + 9;
  }
  return builder.choice(std::move(alternatives));
}

Expr integer_range(GrammarBuilder& builder, int64_t low, int64_t high) {
  std::vector<Expr> alternatives;
  if (low < 0 && low <= high) {
    alternatives.push_back(
        builder.sequence({builder.literal("-"), natural_range(builder, std::max<int64_t>(1, -high), -low)}));
  }
  if (high >= 0) alternatives.push_back(natural_range(builder, std::max<int64_t>(0, low), high));
  return builder.choice(std::move(alternatives));
}

// [sign] digits, kept apart by the remainder and the number of digits so far.
Expr multiples(GrammarBuilder& builder, int64_t divisor) {
  const auto node = [&](int length, int64_t remainder) {
    return static_cast<uint32_t>(2 + (length - 1) * divisor + remainder);
  };
  std::vector<GrammarBuilder::GraphEdge> edges = {{0, 1, builder.literal("-")}, {0, 1, GrammarBuilder::kEmpty}};
  std::vector<uint32_t> accepts;
  std::vector<Expr> digits;
  for (char c = '0'; c <= '9'; ++c) digits.push_back(builder.literal({&c, 1}));
  for (int64_t digit = 1; digit <= 9; ++digit) edges.push_back({1, node(1, digit % divisor), digits[digit]});
  for (int length = 1; length <= kMaxMultipleDigits; ++length) {
    accepts.push_back(node(length, 0));
    for (int64_t remainder = 0; remainder < divisor && length < kMaxMultipleDigits; ++remainder) {
      for (int64_t digit = 0; digit <= 9; ++digit) {
        edges.push_back({node(length, remainder), node(length + 1, (remainder * 10 + digit) % divisor), digits[digit]});
      }
    }
  }
  const uint32_t num_nodes = static_cast<uint32_t>(2 + kMaxMultipleDigits * divisor);
  return builder.choice({builder.literal("0"), builder.graph(num_nodes, std::move(edges), std::move(accepts))});
}

Expected<Expr> multiples_within(GrammarBuilder& builder, int64_t divisor, int64_t low, int64_t high) {
  if (low <= -kMaxInteger && high >= kMaxInteger) {
    if (divisor <= kMaxMultipleOf) return multiples(builder, divisor);
    return make_error(ErrorCode::kUnsupported,
                      "multipleOf {} without minimum and maximum is not supported, at most {} is", divisor,
                      kMaxMultipleOf);
  }
  const int64_t first = low / divisor + (low % divisor > 0 ? 1 : 0);
  const int64_t last = high / divisor - (high % divisor < 0 ? 1 : 0);
  if (last - first >= kMaxListedMultiples) {
    return make_error(ErrorCode::kUnsupported,
                      "multipleOf {} with more than {} values between minimum and maximum is not supported", divisor,
                      kMaxListedMultiples);
  }
  std::vector<Expr> values;
  for (int64_t i = first; i <= last; ++i) values.push_back(builder.literal(std::to_string(i * divisor)));
  return builder.choice(std::move(values));
}

// 0: no multipleOf.
Expected<int64_t> read_divisor(const Json& schema) {
  const auto found = schema.find("multipleOf");
  if (found == schema.end()) return 0;
  if (!found->is_number() || found->get<double>() <= 0) {
    return make_error(ErrorCode::kInvalidArgument, "multipleOf must be a number above 0");
  }
  const Decimal value = to_decimal(*found);
  if (!value.fraction.empty() || value.integer.size() > kMaxIntegerDigits) {
    return make_error(ErrorCode::kUnsupported, "multipleOf {} is not supported, integers are", found->dump());
  }
  return std::stoll(value.integer);
}

Expr with_fraction(GrammarBuilder& builder, DigitRange range, const DigitRange::Text& low,
                   const DigitRange::Text& high) {
  const Expr digits = range.digits(low, high, kMaxBoundedFractionDigits, false);
  const Expr fraction = builder.sequence({builder.literal("."), digits});
  if (!range.may_end_here(low, high)) return fraction;
  return fraction == GrammarBuilder::kNothing ? GrammarBuilder::kEmpty : builder.optional(fraction);
}

// Numbers from low to high, neither below 0; absent: no bound. Long ones are integers.
Expr magnitudes(GrammarBuilder& builder, std::optional<Bound> low, std::optional<Bound> high) {
  constexpr int64_t kLastShort = 999'999'999, kLastLong = 999'999'999'999'999;
  if (low) low->value.is_negative = false;
  if (high) high->value.is_negative = false;
  const int64_t first_long = std::max(low ? first_integer(*low) : 0, kLastShort + 1);
  const int64_t last_long = std::min(high ? last_integer(*high) : kLastLong, kLastLong);
  std::vector<Expr> alternatives = {natural_range(builder, first_long, last_long)};
  if (low && low->value.integer.size() > kMaxBoundedIntegerDigits) return alternatives[0];
  if (high && high->value.integer.size() > kMaxBoundedIntegerDigits) high.reset();

  const int64_t first = low ? std::stoll(low->value.integer) : 0;
  const int64_t last = high ? std::stoll(high->value.integer) : kLastShort;
  const DigitRange range(builder, low && low->is_strict, high && high->is_strict);
  const DigitRange::Text low_fraction = low ? DigitRange::Text(low->value.fraction) : std::nullopt;
  const DigitRange::Text high_fraction = high ? DigitRange::Text(high->value.fraction) : std::nullopt;
  const auto add = [&](int64_t from, int64_t to, const DigitRange::Text& low_part, const DigitRange::Text& high_part) {
    if (from > to) return;
    alternatives.push_back(
        builder.sequence({natural_range(builder, from, to), with_fraction(builder, range, low_part, high_part)}));
  };
  if (first == last) {
    add(first, first, low_fraction, high_fraction);
  } else if (first < last) {
    add(first, first, low_fraction, {});
    add(first + 1, last - 1, {}, {});
    add(last, last, {}, high_fraction);
  }
  return builder.choice(std::move(alternatives));
}

std::optional<Bound> negated(std::optional<Bound> bound) {
  if (bound) bound->value.is_negative = !bound->value.is_negative;
  return bound;
}
bool is_negative(const std::optional<Bound>& bound) { return bound && bound->value.is_negative; }
bool is_zero(const Bound& bound) { return bound.value.integer == "0" && bound.value.fraction.empty(); }

}  // namespace

Expected<Expr> bounded_integer(GrammarBuilder& builder, JsonGrammar& json, const Json& schema) {
  HADAL_ASSIGN_OR_RETURN(const Bounds bounds, read_bounds(schema));
  HADAL_ASSIGN_OR_RETURN(const int64_t divisor, read_divisor(schema));
  const int64_t low = bounds.low ? std::max(first_integer(*bounds.low), -kMaxInteger) : -kMaxInteger;
  const int64_t high = bounds.high ? std::min(last_integer(*bounds.high), kMaxInteger) : kMaxInteger;
  if (divisor > 1) return multiples_within(builder, divisor, low, high);
  if (!bounds.low && !bounds.high) return json.integer();
  return low > high ? GrammarBuilder::kNothing : integer_range(builder, low, high);
}

Expected<Expr> bounded_number(GrammarBuilder& builder, JsonGrammar& json, const Json& schema) {
  HADAL_ASSIGN_OR_RETURN(const Bounds bounds, read_bounds(schema));
  HADAL_ASSIGN_OR_RETURN(const int64_t divisor, read_divisor(schema));
  if (divisor > 0) return bounded_integer(builder, json, schema);
  if (!bounds.low && !bounds.high) return json.number();
  for (const std::optional<Bound>* bound : {&bounds.low, &bounds.high}) {
    if (*bound && (*bound)->is_strict && (*bound)->value.integer.size() + (*bound)->value.fraction.size() > 15) {
      return make_error(ErrorCode::kUnsupported, "exclusive bounds with more than 15 digits are not supported");
    }
  }
  std::vector<Expr> alternatives;
  // Below zero: magnitudes from -high to -low.
  if (!bounds.low || bounds.low->value.is_negative) {
    const std::optional<Bound> from =
        is_negative(bounds.high) || (bounds.high && is_zero(*bounds.high)) ? negated(bounds.high) : std::nullopt;
    alternatives.push_back(builder.sequence({builder.literal("-"), magnitudes(builder, from, negated(bounds.low))}));
  }
  if (!is_negative(bounds.high)) {
    const std::optional<Bound> from = is_negative(bounds.low) ? std::nullopt : bounds.low;
    alternatives.push_back(magnitudes(builder, from, bounds.high));
  }
  return builder.choice(std::move(alternatives));
}

}  // namespace hadal
