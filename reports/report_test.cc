#include "reports/report.h"

#include <gtest/gtest.h>

namespace shardproof {
namespace {

Launch On(const std::string& host, const std::string& cpu) {
  Launch launch;
  launch.fingerprint.host = host;
  launch.fingerprint.cpu = cpu;
  return launch;
}

TEST(MachineNames, AreThoseOfHosts) {
  EXPECT_EQ(MachineNames({On("a", "x"), On("b", "x"), On("a", "x")}),
            (std::vector<std::string>{"a", "b", "a"}));
  EXPECT_TRUE(MachineNames({}).empty());
}

// Containers have the names that somebody gave them.
TEST(MachineNames, TellMachinesOfOneNameApart) {
  const std::vector<std::string> names =
      MachineNames({On("node", "x"), On("node", "y"), On("node", "x")});
  EXPECT_EQ(names[0], "node (" + MachineId(On("", "x").fingerprint) + ")");
  EXPECT_NE(names[0], names[1]);
  EXPECT_EQ(names[0], names[2]);
  EXPECT_EQ(MachineNames({On("", "x")})[0], MachineId(On("", "x").fingerprint));
}

TEST(MachineNames, AHostsNameMakesNoMachine) {
  EXPECT_FALSE(OfSeveralMachines({}));
  EXPECT_FALSE(OfSeveralMachines({On("a", "x"), On("b", "x")}));
  EXPECT_TRUE(OfSeveralMachines({On("a", "x"), On("a", "y")}));
}

}  // namespace
}  // namespace shardproof
