#include "collectives/mesh.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

// The world ranks of `comm`, in its order.
StatusOr<std::vector<int>> WorldRanks(const Communicator& comm, int mine) {
  std::vector<int> ranks;
  SP_ASSIGN_OR_RETURN(const Peers peers, comm.MeetEager(&mine, 4));
  for (int r = 0; r < comm.size(); ++r) {
    ranks.push_back(*reinterpret_cast<const int*>(peers.Read(r, 0, 4)));
  }
  return ranks;
}

TEST(MeshTest, TwoByTwoByTwo) {
  const Status status = RunThreads(8, [](const Communicator& world) -> Status {
    SP_ASSIGN_OR_RETURN(const Mesh mesh,
                        Mesh::Create(world, {{"tp", 2}, {"pp", 2}, {"dp", 2}}));
    const int me = world.rank();
    EXPECT_EQ(mesh.world().size(), 8);
    EXPECT_EQ(mesh.dimensions().size(), 3u);
    EXPECT_EQ(mesh.Coordinate("tp"), me % 2);
    EXPECT_EQ(mesh.Coordinate("pp"), me / 2 % 2);
    EXPECT_EQ(mesh.Coordinate("dp"), me / 4);
    EXPECT_EQ(mesh.Coordinate("pp", 6), 1);
    EXPECT_EQ(mesh.Coordinate("dp", 3), 0);
    for (int rank = 0; rank < 8; ++rank) {
      EXPECT_EQ(
          mesh.RankAt({mesh.Coordinate("tp", rank), mesh.Coordinate("pp", rank),
                       mesh.Coordinate("dp", rank)}),
          rank);
    }
    EXPECT_EQ(mesh.RankAt({1, 0, 1}), 5);

    // Ranks that differ in one coordinate, numbered by it.
    int stride = 1;
    for (const char* name : {"tp", "pp", "dp"}) {
      EXPECT_EQ(mesh.Along(name).rank(), mesh.Coordinate(name));
      SP_ASSIGN_OR_RETURN(const std::vector<int> ranks,
                          WorldRanks(mesh.Along(name), me));
      const int base = me - stride * mesh.Coordinate(name);
      EXPECT_EQ(ranks, (std::vector<int>{base, base + stride}));
      stride *= 2;
    }
    // In two of them.
    SP_ASSIGN_OR_RETURN(const Communicator outer,
                        mesh.Along(std::vector<std::string>{"dp", "pp"}));
    SP_ASSIGN_OR_RETURN(const std::vector<int> ranks, WorldRanks(outer, me));
    const int tp = me % 2;
    EXPECT_EQ(ranks, (std::vector<int>{tp, tp + 2, tp + 4, tp + 6}));
    SP_ASSIGN_OR_RETURN(const Communicator all, mesh.Along({"tp", "pp", "dp"}));
    EXPECT_EQ(all.size(), 8);
    SP_ASSIGN_OR_RETURN(const Communicator alone,
                        mesh.Along(std::vector<std::string>{}));
    EXPECT_EQ(alone.size(), 1);
    EXPECT_EQ(mesh.Along({"tp", "nn"}).status().code(),
              StatusCode::kInvalidArgument);
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(MeshTest, UnequalSizesAndSizeOne) {
  const Status status = RunThreads(6, [](const Communicator& world) -> Status {
    SP_ASSIGN_OR_RETURN(const Mesh mesh,
                        Mesh::Create(world, {{"a", 3}, {"one", 1}, {"b", 2}}));
    EXPECT_EQ(mesh.Along("a").size(), 3);
    EXPECT_EQ(mesh.Along("one").size(), 1);
    EXPECT_EQ(mesh.Along("b").size(), 2);
    EXPECT_EQ(mesh.Coordinate("a"), world.rank() % 3);
    EXPECT_EQ(mesh.Coordinate("one"), 0);
    EXPECT_EQ(mesh.Coordinate("b"), world.rank() / 3);
    EXPECT_EQ(mesh.RankAt({2, 0, 1}), 5);
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(MeshTest, BadDimensionsAreRefusedOnEveryRank) {
  const Status status = RunThreads(4, [](const Communicator& world) -> Status {
    const auto message = [&](std::vector<MeshDimension> dimensions) {
      const auto mesh = Mesh::Create(world, std::move(dimensions));
      EXPECT_EQ(mesh.status().code(), StatusCode::kInvalidArgument);
      return std::string(mesh.status().message());
    };
    EXPECT_EQ(message({{"tp", 2}, {"dp", 3}}),
              "the mesh tp=2,dp=3 has 6 ranks and the world 4");
    EXPECT_EQ(message({{"tp", 0}, {"dp", 4}}),
              "mesh dimension tp has size 0; it must be at least 1");
    EXPECT_EQ(message({{"tp", 2}, {"tp", 2}}),
              "the mesh has two dimensions named tp");
    EXPECT_EQ(message({{"", 4}}), "dimension 0 of the mesh has no name");
    EXPECT_EQ(message({}),
              "the mesh without dimensions has 1 ranks and the world 4");
    // A product that wraps around to 4 in 32 or 64 bits.
    EXPECT_NE(message({{"a", 1 << 30}, {"b", 1 << 30}, {"c", 1 << 6}}), "");
    return world.Barrier();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(ParseMeshTest, ReadsNamesAndSizes) {
  const auto mesh = ParseMesh("tp=2,pp=4,dp=128");
  ASSERT_TRUE(mesh.ok()) << mesh.status().ToString();
  ASSERT_EQ(mesh->size(), 3u);
  EXPECT_EQ((*mesh)[1].name, "pp");
  EXPECT_EQ((*mesh)[1].size, 4);
  EXPECT_EQ((*mesh)[2].size, 128);
}

TEST(ParseMeshTest, RefusesAnythingElse) {
  for (const char* text :
       {"", ",", "tp", "tp=", "=2", "tp=2,", "tp=x", "tp=2x", "tp=-1", "tp=0",
        "tp=2;dp=2", "tp=99999999999", "tp=2,,dp=2", "tp= 2"}) {
    const auto mesh = ParseMesh(text);
    EXPECT_EQ(mesh.status().code(), StatusCode::kInvalidArgument) << text;
    EXPECT_NE(mesh.status().message().find("is not name=size"),
              std::string_view::npos)
        << text;
  }
}

}  // namespace
}  // namespace shardproof
