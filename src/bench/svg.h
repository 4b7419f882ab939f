// Writes SVG elements with escaped text: just what a chart needs.
#pragma once

#include <string>
#include <string_view>

namespace hadal {

enum class TextAnchor { kStart, kMiddle, kEnd };

class SvgWriter {
 public:
  SvgWriter(double width, double height);

  // `tooltip`, if any, is shown by browsers.
  void rect(double x, double y, double width, double height, std::string_view fill, std::string_view tooltip = {});
  void line(double x1, double y1, double x2, double y2, std::string_view stroke, double stroke_width = 1);
  void text(double x, double y, std::string_view content, TextAnchor anchor = TextAnchor::kStart, double size = 12,
            std::string_view fill = "#222222", bool bold = false);
  // The whole document; call once.
  std::string finish();

 private:
  std::string out_;
};

// &, <, >, " and control characters made harmless; invalid UTF-8 replaced.
std::string escape_xml(std::string_view text);

}  // namespace hadal
