#include "collectives/tuning.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

namespace shardproof {
namespace {

const std::string kTitle = "# shardproof tuning 1\n";

TEST(TuningTable, ReadsWhatItWrites) {
  const TuningTable table({{.primitive = "all_reduce",
                            .shared = true,
                            .ranks = 4,
                            .from_bytes = 65536,
                            .variant = "two_shot"},
                           {.primitive = "all_reduce",
                            .shared = true,
                            .ranks = 4,
                            .from_bytes = 0,
                            .variant = "one_shot"},
                           {.primitive = "all_gather",
                            .shared = false,
                            .ranks = 3,
                            .from_bytes = 0,
                            .variant = "ring"}});
  EXPECT_EQ(table.Text(), kTitle +
                              "all_gather messages 3 0 ring\n"
                              "all_reduce shared 4 0 one_shot\n"
                              "all_reduce shared 4 65536 two_shot\n");
  const auto again = TuningTable::Parse(table.Text(), "t");
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->rows(), table.rows());
  EXPECT_EQ(again->Hash(), table.Hash());
  const auto commented = TuningTable::Parse(
      kTitle + "# why\n\n" + table.Text().substr(kTitle.size()), "t");
  ASSERT_TRUE(commented.ok());
  EXPECT_EQ(commented->Hash(), table.Hash());
  const auto other =
      TuningTable::Parse(kTitle + "all_gather messages 3 1 ring\n", "t");
  ASSERT_TRUE(other.ok());
  EXPECT_NE(other->Hash(), table.Hash());
}

TEST(TuningTable, AnEmptyOneSaysNothing) {
  const auto table = TuningTable::Parse(kTitle, "t");
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  EXPECT_TRUE(table->rows().empty());
  EXPECT_EQ(table->Hash(), 0u);
  EXPECT_TRUE(
      TuningTable::Parse(kTitle.substr(0, kTitle.size() - 1), "t").ok());
}

TEST(TuningTable, NamesTheLineThatIsWrong) {
  const auto message = [](const std::string& text) {
    return std::string(TuningTable::Parse(text, "t").status().message());
  };
  for (const std::string line :
       {"all_reduce messages 4 16384", "all_reduce messages 4 16384 ring 1",
        "all_reduce nowhere 4 16384 ring", "all_reduce messages 0 16384 ring",
        "all_reduce messages 4 -1 ring", "all_reduce messages 4 1e3 ring",
        "all_reduce messages 4 99999999999999999999 ring",
        "All-Reduce messages 4 16384 ring"}) {
    EXPECT_TRUE(message(fmt::format("{}# ok\n{}\n", kTitle, line))
                    .starts_with(fmt::format("t, line 3: \"{}\" is not", line)))
        << message(fmt::format("{}# ok\n{}\n", kTitle, line));
  }
  EXPECT_NE(message(kTitle + "reduce shared 2 0 direct\n"
                             "reduce shared 2 0 binomial\n")
                .find("are for the same"),
            std::string::npos);
  for (const std::string text : {"", "\n", "all_reduce messages 4 0 ring\n",
                                 "# shardproof tuning 2\n", "\177ELF"}) {
    EXPECT_NE(message(text).find("is not a tuning table"), std::string::npos)
        << text;
  }
  EXPECT_EQ(TuningTable::Load("/nowhere").status().code(),
            StatusCode::kInvalidArgument);
}

struct Args {};
Status A(const Communicator&, const Args&) { return OkStatus(); }
Status B(const Communicator&, const Args&) { return OkStatus(); }

TEST(Tuned, FindsTheRowForTheSize) {
  constexpr std::array<TunedVariant<Args>, 2> kVariants = {
      {{"a", true, A}, {"b", false, B}}};
  const auto table = TuningTable::Parse(kTitle +
                                            "x shared 4 1024 b\n"
                                            "x shared 4 64 a\n"
                                            "x messages 4 0 a\n"
                                            "x messages 4 100 b\n"
                                            "x shared 8 0 unknown\n"
                                            "y shared 4 0 b\n",
                                        "t");
  ASSERT_TRUE(table.ok()) << table.status().ToString();
  const Tuned<Args> tuned("x", kVariants, *table);
  EXPECT_EQ(tuned.Find(true, 4, 63), nullptr);
  EXPECT_EQ(tuned.Find(true, 4, 64), &A);
  EXPECT_EQ(tuned.Find(true, 4, 1023), &A);
  EXPECT_EQ(tuned.Find(true, 4, 1024), &B);
  EXPECT_EQ(tuned.Find(true, 4, int64_t{1} << 40), &B);
  EXPECT_EQ(tuned.Find(true, 2, 64), nullptr);
  EXPECT_EQ(tuned.Find(true, 8, 64), nullptr);
  // `a` needs memory that these ranks do not share.
  EXPECT_EQ(tuned.Find(false, 4, 50), nullptr);
  EXPECT_EQ(tuned.Find(false, 4, 100), &B);
  EXPECT_EQ(Tuned<Args>("z", kVariants, *table).Find(true, 4, 64), nullptr);
}

}  // namespace
}  // namespace shardproof
