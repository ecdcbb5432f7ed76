#include "tools/cli/environment.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace shardproof {
namespace {

std::string InTemporary(const std::string& name) {
  const char* folder = std::getenv("TEST_TMPDIR");
  return std::string(folder != nullptr ? folder : "/tmp") + "/" + name;
}

TEST(Environment, IsWhatAResultFileSays) {
  const Fingerprint f = CollectFingerprint("commit 7");
  EXPECT_FALSE(f.host.empty());
  EXPECT_FALSE(f.cpu.empty());
  EXPECT_EQ(f.kernel.rfind("Linux ", 0), 0u) << f.kernel;
  EXPECT_GT(f.cores, 0);
  EXPECT_GT(f.memory_bytes, int64_t{1} << 20);
  EXPECT_EQ(f.topology.size(), 16u);
  EXPECT_EQ(f.binary, HashFile("/proc/self/exe"));
  EXPECT_EQ(f.binary.size(), 16u);
  EXPECT_EQ(f.label, "commit 7");
  EXPECT_EQ(FingerprintFromJson(Environment("commit 7")), f);
  // Nothing of it changes from one call to the next.
  EXPECT_EQ(CollectFingerprint("commit 7"), f);
}

TEST(Environment, TakesOnlyVariablesOfTheListAndNoSecrets) {
  const std::map<std::string, std::string> set = {
      {"NCCL_ALGO", "Ring"},
      {"NCCL_SOCKET_IFNAME", "https://user:pass@host/"},
      {"OMPI_MCA_pml", "ob1"},
      {"OMPI_MCA_orte_precondition_transports", "0123456789abcdef"},
      {"OMPI_COMM_WORLD_SIZE", "4"},
      {"AWS_SECRET_ACCESS_KEY", "x"},
      {"UCX_TLS", "deadbeefdeadbeefdeadbeefdeadbeef0"}};
  const auto variables = AllowedVariables([&](const char* name) {
    const auto it = set.find(name);
    return it == set.end() ? nullptr : it->second.c_str();
  });
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"NCCL_ALGO", "Ring"},
      {"NCCL_SOCKET_IFNAME", "(withheld)"},
      {"OMPI_MCA_pml", "ob1"},
      {"UCX_TLS", "(withheld)"}};
  EXPECT_EQ(variables, expected);
}

TEST(Environment, KnowsASecretWhenItSeesOne) {
  for (const char* secret :
       {"TOKEN=x", "my-Password", "ghp_aaaaaaaaaabbbbbbbbbb1111111111222222",
        "postgres://me:pw@db", "a client_secret"}) {
    EXPECT_TRUE(LooksSecret(secret)) << secret;
  }
  for (const char* plain :
       {"", "Ring,Tree", "mlx5_0,mlx5_1:1,mlx5_2", "^ucx",
        "/usr/share/nccl/topology/of-a-machine.xml", "self,vader,tcp", "eth0",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
    EXPECT_FALSE(LooksSecret(plain)) << plain;
  }
}

TEST(Environment, HashTellsFilesApart) {
  const std::string path = InTemporary("hashed");
  const auto hash_of = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return HashFile(path);
  };
  const std::string big(3 * (1 << 20) + 5, 'x');
  const std::string hash = hash_of(big);
  EXPECT_EQ(hash_of(big), hash);
  std::string other = big;
  other[1234567] = 'y';
  EXPECT_NE(hash_of(other), hash);
  other = big;
  other.back() = 'y';
  EXPECT_NE(hash_of(other), hash);
  EXPECT_NE(hash_of(std::string("a\0", 2)), hash_of("a"));
  EXPECT_NE(hash_of(""), hash_of(std::string(8, '\0')));
  EXPECT_EQ(HashFile(InTemporary("not there")), "");
}

}  // namespace
}  // namespace shardproof
