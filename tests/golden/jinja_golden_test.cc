// The template language against Jinja2 itself: jinja_cases.json is written by make_jinja_cases.py.
#include <gtest/gtest.h>

#include "support/test_files.h"
#include "text/chat_template.h"

namespace hadal {
namespace {

TEST(GoldenJinja, AgreesWithJinja2) {
  const Json golden = load_json(source_dir() / "tests" / "golden" / "jinja_cases.json");
  int num_renders = 0, num_errors = 0;
  for (const Json& row : golden["cases"]) {
    const std::string source = row["template"];
    const auto parsed = ChatTemplate::parse(source);
    const auto text =
        parsed ? parsed->render(golden["context"]) : Expected<std::string>(tl::unexpected(parsed.error()));
    if (row.contains("expected")) {
      ASSERT_TRUE(text.has_value()) << source << "\n" << text.error().message;
      EXPECT_EQ(*text, row["expected"].get<std::string>()) << source;
      ++num_renders;
      continue;
    }
    ASSERT_FALSE(text.has_value()) << source << "\n" << *text;
    const std::string reference = row["error"];
    // Messages of broken syntax are our own; those of running templates are Python's words.
    const bool is_own = reference.starts_with("Template") && !reference.starts_with("TemplateError") &&
                        !reference.starts_with("TemplateRuntimeError");
    const std::string words = reference.substr(reference.find(": ") + 2);
    if (!is_own && !reference.starts_with("ValueError")) {
      EXPECT_TRUE(text.error().message.ends_with(words)) << source << "\n" << text.error().message;
    }
    EXPECT_TRUE(text.error().message.starts_with("chat template: line 1: ")) << text.error().message;
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
    ++num_errors;
  }
  std::printf("golden.templates: %d renders and %d errors agree with Jinja2 %s\n", num_renders, num_errors,
              golden["jinja2"].get<std::string>().c_str());
}

}  // namespace
}  // namespace hadal
