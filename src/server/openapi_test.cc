// The description fits the routes: nothing is missing, nothing is invented, every reference leads somewhere.
#include "server/openapi.h"

#include <gtest/gtest.h>

#include <set>

#include "server/router.h"
#include "server/server_test_support.h"

namespace hadal {
namespace {

void collect_references(const Json& value, std::set<std::string>* references) {
  if (value.is_object() && value.contains("$ref")) references->insert(value["$ref"].get<std::string>());
  if (!value.is_structured()) return;
  for (const Json& item : value) collect_references(item, references);
}

TEST(OpenApi, DescribesEveryRouteAndNoOther) {
  std::set<std::string> described;
  for (const ApiOperation& operation : api_operations()) {
    const bool is_first = described.insert(std::string(operation.method) + " " + operation.path).second;
    EXPECT_TRUE(is_first) << operation.method << " " << operation.path << " is described twice";
    HttpRequest request;
    request.method = operation.method;
    request.path = operation.path;
    EXPECT_NE(find_route(request), nullptr) << operation.method << " " << operation.path;
  }
  for (const Route& route : all_routes()) {
    const std::string name = std::string(route.method) + " " + route.path;
    const auto at = described.lower_bound(name);
    const bool found = at != described.end() && (*at == name || (route.is_prefix && at->starts_with(name)));
    EXPECT_TRUE(found) << name << " is not described: add it to the table in openapi.cc";
  }
}

TEST(OpenApi, ReferencesLeadToObjectsAndAllObjectsAreUsed) {
  const Json document = openapi_document("1.2.3");
  EXPECT_EQ(document["info"]["version"], "1.2.3");
  std::set<std::string> references;
  collect_references(document, &references);
  std::set<std::string> objects;
  for (const auto& [name, schema] : document["components"]["schemas"].items()) {
    objects.insert("#/components/schemas/" + name);
    EXPECT_EQ(schema["type"], "object") << name;
    for (const auto& field : schema.value("required", Json::array())) {
      EXPECT_TRUE(schema["properties"].contains(field.get<std::string>())) << name << " " << field;
    }
  }
  EXPECT_EQ(references, objects);
}

TEST(OpenApi, OptionalRequestFieldsMayBeNullAndRequiredOnesMayNot) {
  const Json properties = openapi_document("")["components"]["schemas"]["CompletionRequest"]["properties"];
  EXPECT_EQ(properties["echo"]["type"], Json::array({"boolean", "null"}));
  EXPECT_EQ(properties["stop"]["anyOf"].back()["type"], "null");
  EXPECT_NE(properties["prompt"]["anyOf"].back()["type"], "null");
}

TEST(OpenApi, IsServedUnlessSwitchedOff) {
  ServerOptions options;
  const TestServer s("x", options);
  EXPECT_EQ(s.get("/openapi.json").json(), openapi_document("1.2.3"));
  const HttpReply page = s.get("/docs");
  EXPECT_EQ(page.header("content-type"), "text/html; charset=utf-8");
  EXPECT_NE(page.body.find("/v1/chat/completions"), std::string::npos);
  EXPECT_EQ(page.body.find("<script"), std::string::npos);
  options.enable_api_docs = false;
  const TestServer off("x", options);
  expect_error(off.get("/openapi.json"), 404, "switched off");
  expect_error(off.get("/docs"), 404, "switched off");
}

}  // namespace
}  // namespace hadal
