// Where it was measured, what was different, and what did not run.
#include <map>
#include <utility>

#include "reports/html/pages.h"
#include "reports/html/table.h"

namespace shardproof::html {
namespace {

void EnvironmentDiff(Page page, const Fingerprint& before,
                     const Fingerprint& after) {
  Table table("What differs between base and candidate",
              {{"field"}, {"base"}, {"candidate"}, {"meaning"}});
  for (const Difference& d : Differences(before, after)) {
    table.Add({d.field, d.before, d.after,
               std::string(d.machine ? "another machine: not comparable"
                           : d.epoch ? "starts an epoch of the history"
                                     : "")});
  }
  if (table.rows() == 0) {
    page.w.Write(
        "<p>Base and candidate were measured in the same environment.</p>\n");
    return;
  }
  table.Write(page.w);
}

void Row(Table& table, std::string name, std::string value) {
  if (value.empty()) return;
  table.Add({std::move(name), std::move(value)});
}

void FingerprintTable(Page page, const Fingerprint& f) {
  Table table("Environment of the last launch",
              {{"field"}, {"value", Column::kProse}}, Table::kPlain);
  Row(table, "host", f.host);
  Row(table, "label", f.label);
  Row(table, "processor", f.cpu);
  if (f.cores > 0) Row(table, "cores", fmt::format("{}", f.cores));
  if (f.memory_bytes > 0) {
    Row(table, "memory", BytesAsText(static_cast<double>(f.memory_bytes)));
  }
  Row(table, "governor", f.governor);
  Row(table, "topology", f.topology);
  for (const Gpu& gpu : f.gpus) {
    Row(table, "GPU",
        gpu.memory_bytes > 0
            ? fmt::format("{}, {}", gpu.name,
                          BytesAsText(static_cast<double>(gpu.memory_bytes)))
            : gpu.name);
  }
  Row(table, "driver", f.driver);
  Row(table, "CUDA", f.cuda);
  Row(table, "NCCL", f.nccl);
  Row(table, "MPI", f.mpi);
  Row(table, "kernel", f.kernel);
  Row(table, "compiler", f.compiler);
  Row(table, "version", f.version);
  Row(table, "binary", f.binary);
  for (const auto& [name, value] : f.variables) Row(table, name, value);
  table.Write(page.w);
}

void LaunchTable(Page page) {
  constexpr size_t kMost = 100;
  Table table("Launches and their conditions, before and after",
              {{"launch"},
               {"started"},
               {"finished"},
               {"records", Column::kWhole},
               {"load before", Column::kNumber},
               {"after", Column::kNumber},
               {"stolen before", Column::kPortion},
               {"after", Column::kPortion},
               {"others busy", Column::kPortion},
               {"throttled", Column::kWhole},
               {"MHz", Column::kWhole},
               {"state"}});
  for (const Launch& l : page.report.launches) {
    if (table.rows() >= kMost) break;
    const double throttled = static_cast<double>(l.after.throttle_events) -
                             static_cast<double>(l.before.throttle_events);
    table.Add({l.name, l.started, l.finished,
               static_cast<double>(l.records.size()), l.before.load,
               l.after.load, l.before.steal_share, l.after.steal_share,
               l.after.busy_share, throttled,
               l.after.mhz > 0 ? Cell(l.after.mhz) : Cell(),
               std::string(l.interrupted ? "interrupted"
                           : l.complete  ? "complete"
                                         : "incomplete: it was killed")});
  }
  if (page.report.launches.size() > kMost) {
    table.Note(
        fmt::format("the first {} of {}", kMost, page.report.launches.size()));
  }
  table.Write(page.w);
}

}  // namespace

void EnvironmentSection(Page page) {
  const Report& report = page.report;
  if (report.launches.empty()) return;
  page.w.Write("<h3>Environment</h3>\n");
  const Fingerprint& last = report.launches.back().fingerprint;
  if (report.base_fingerprint.has_value()) {
    EnvironmentDiff(page, *report.base_fingerprint, last);
  }
  FingerprintTable(page, last);
  LaunchTable(page);
}

void LeftOutSection(Page page) {
  constexpr size_t kMost = 300;
  // What did not run for one reason is one row.
  struct Group {
    size_t n = 0;
    std::string example = {};
  };
  std::map<std::pair<std::string, std::string>, Group> groups;
  for (const Launch& l : page.report.launches) {
    for (const std::string& what : l.left_out) {
      Group& group = groups[{what, "left_out"}];
      ++group.n;
      group.example = l.name;
    }
    for (const Record& r : l.records) {
      if (r.verdict != Verdict::kUnsupported &&
          r.verdict != Verdict::kNotBuilt) {
        continue;
      }
      Group& group = groups[{r.reason, std::string(Name(r.verdict))}];
      ++group.n;
      if (group.example.empty()) {
        group.example = fmt::format("{} {} {} {} {}", r.case_name, r.variant,
                                    r.backend, r.ranks, ParamsText(r));
      }
    }
  }
  page.w.Write("<h3>What did not run, and why</h3>\n");
  if (groups.empty()) {
    page.w.Write("<p>Everything that was chosen ran.</p>\n");
    return;
  }
  Table table("Not run", {{"why", Column::kProse},
                          {"kind"},
                          {"how many", Column::kWhole},
                          {"for example", Column::kProse}});
  for (const auto& [what, group] : groups) {
    if (table.rows() >= kMost) break;
    table.Add({what.first,
               what.second == "left_out" ? Cell(std::string("left out"))
                                         : Cell(Badge(what.second)),
               static_cast<double>(group.n), group.example});
  }
  if (groups.size() > kMost) {
    table.Note(fmt::format("the first {} of {} reasons", kMost, groups.size()));
  }
  table.Write(page.w);
}

}  // namespace shardproof::html
