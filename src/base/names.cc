#include "base/names.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace hadal {
namespace {

std::string folded(std::string_view name) {
  std::string out(name);
  for (char& c : out) {
    if (c == '-') c = '_';
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substitute = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substitute});
    }
  }
  return row.back();
}

}  // namespace

std::string closest_name(std::string_view name, std::span<const std::string> candidates, size_t max_distance) {
  constexpr size_t kMaxNameBytes = 128;  // the distance is quadratic, and the name is foreign
  if (name.size() > kMaxNameBytes) return "";
  const std::string wanted = folded(name);
  std::string best;
  const size_t farthest = std::min(max_distance, std::max<size_t>(1, name.size() / 3));
  size_t best_distance = farthest + 1;
  for (const std::string& candidate : candidates) {
    if (const size_t distance = edit_distance(wanted, folded(candidate)); distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace hadal
