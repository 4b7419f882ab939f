// Markers in text that arrives in pieces.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>

namespace hadal {

struct MarkerMatch {
  size_t begin = std::string_view::npos;  // npos: none
  size_t which = 0;                       // index into the markers
  bool found() const { return begin != std::string_view::npos; }
};

// The leftmost; of those at one place, the first in the list. Empty markers are never found.
template <typename String>
MarkerMatch find_marker(std::string_view text, std::span<const String> markers) {
  MarkerMatch match;
  for (size_t i = 0; i < markers.size(); ++i) {
    if (std::string_view(markers[i]).empty()) continue;
    const size_t begin = text.find(markers[i]);
    if (begin < match.begin) match = {begin, i};
  }
  return match;
}

// Bytes at the end of the text that could begin one of the markers.
template <typename String>
size_t partial_marker_bytes(std::string_view text, std::span<const String> markers) {
  size_t longest = 0;
  for (const std::string_view marker : markers) {
    if (marker.empty()) continue;
    for (size_t n = std::min(marker.size() - 1, text.size()); n > longest; --n) {
      if (text.ends_with(marker.substr(0, n))) longest = n;
    }
  }
  return longest;
}

}  // namespace hadal
