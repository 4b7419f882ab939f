#include "cli/doctor_checks.h"

#include <algorithm>

namespace hadal {

std::vector<Finding> examine_host(const DoctorHost& host, const DoctorRequest& request) {
  std::vector<Finding> findings;
  examine_cpu(host, findings);
  examine_numa(host, findings);
  examine_memory(host, findings);
  examine_limits(host, request, findings);
  examine_devices(host, findings);
  examine_model(host, request, findings);
  return findings;
}

FindingStatus worst_status(const std::vector<Finding>& findings) {
  FindingStatus worst = FindingStatus::kOk;
  for (const Finding& finding : findings) worst = std::max(worst, finding.status);
  return worst;
}

const char* finding_status_name(FindingStatus status) {
  switch (status) {
    case FindingStatus::kOk:
      return "ok";
    case FindingStatus::kNote:
      return "note";
    case FindingStatus::kWarning:
      return "warning";
    case FindingStatus::kFault:
      return "fault";
  }
  return "?";
}

std::string findings_text(const std::vector<Finding>& findings) {
  size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.check.size());
  std::string text;
  for (const Finding& finding : findings) {
    text += fmt::format("{:<8} {:<{}}  {}\n", finding_status_name(finding.status), finding.check, width, finding.found);
    if (!finding.fix.empty()) text += fmt::format("{:<8} {:<{}}  > {}\n", "", "", width, finding.fix);
  }
  return text;
}

Json findings_json(const std::vector<Finding>& findings) {
  Json list = Json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"check", finding.check},
                    {"status", finding_status_name(finding.status)},
                    {"found", finding.found},
                    {"fix", finding.fix}});
  }
  return {{"status", finding_status_name(worst_status(findings))}, {"findings", std::move(list)}};
}

}  // namespace hadal
