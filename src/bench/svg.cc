#include "bench/svg.h"

#include <fmt/format.h>

#include "base/utf8.h"

namespace hadal {

std::string escape_xml(std::string_view text) {
  std::string out;
  for (const char c : to_valid_utf8(text)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

SvgWriter::SvgWriter(double width, double height) {
  out_ = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "font-family=\"Helvetica, Arial, sans-serif\">\n",
      width, height);
  rect(0, 0, width, height, "#ffffff");
}

void SvgWriter::rect(double x, double y, double width, double height, std::string_view fill, std::string_view tooltip) {
  out_ += fmt::format("<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\"", x, y, width,
                      height, fill);
  out_ += tooltip.empty() ? "/>\n" : fmt::format("><title>{}</title></rect>\n", escape_xml(tooltip));
}

void SvgWriter::line(double x1, double y1, double x2, double y2, std::string_view stroke, double stroke_width) {
  out_ += fmt::format(
      "<line x1=\"{:.2f}\" y1=\"{:.2f}\" x2=\"{:.2f}\" y2=\"{:.2f}\" stroke=\"{}\" stroke-width=\"{:.1f}\"/>\n", x1, y1,
      x2, y2, stroke, stroke_width);
}

void SvgWriter::text(double x, double y, std::string_view content, TextAnchor anchor, double size,
                     std::string_view fill, bool bold) {
  static constexpr const char* kAnchors[] = {"start", "middle", "end"};
  out_ += fmt::format(
      "<text x=\"{:.2f}\" y=\"{:.2f}\" font-size=\"{:.0f}\" text-anchor=\"{}\" fill=\"{}\"{}>{}</text>\n", x, y, size,
      kAnchors[static_cast<int>(anchor)], fill, bold ? " font-weight=\"bold\"" : "", escape_xml(content));
}

std::string SvgWriter::finish() { return std::move(out_) + "</svg>\n"; }

}  // namespace hadal
