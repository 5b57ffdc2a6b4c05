#include "cpu/model_cache.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

#include "random_network.h"

namespace modelsat {
namespace {

TEST(ModelCache, ExecutorsOfOneRouterShareItsWeights) {
  RandomNetwork network(SmallConfig(), 1);
  const auto places = network.Write();
  const auto first = SharedModel(network.path(), places, network.config());
  EXPECT_EQ(SharedModel(network.path(), places, network.config()), first);
  RandomNetwork other(SmallConfig(), 1);
  EXPECT_NE(SharedModel(other.path(), other.Write(), other.config()), first) << "another file";
}

TEST(ModelCache, AnotherConfigurationIsAnotherModel) {
  RandomNetwork network(SmallConfig(), 2);
  const auto places = network.Write();
  const auto first = SharedModel(network.path(), places, network.config());
  NativeConfig config = network.config();
  config.layer_norm_eps *= 2.0f;
  EXPECT_NE(SharedModel(network.path(), places, config), first);
}

TEST(ModelCache, AFileThatTookThePlaceOfTheFirstIsLoaded) {
  RandomNetwork network(SmallConfig(), 3);
  RandomNetwork next(SmallConfig(), 4);
  const auto places = network.Write();
  const auto first = SharedModel(network.path(), places, network.config());
  const auto next_places = next.Write();
  ASSERT_EQ(std::rename(next.path().c_str(), network.path().c_str()), 0);
  EXPECT_NE(SharedModel(network.path(), next_places, network.config()), first);
}

TEST(ModelCache, TheWeightsGoWithTheLastOneThatUsesThem) {
  RandomNetwork network(SmallConfig(), 5);
  const auto places = network.Write();
  std::weak_ptr<const NativeModel> model = SharedModel(network.path(), places, network.config());
  EXPECT_TRUE(model.expired());
  EXPECT_NE(SharedModel(network.path(), places, network.config()), nullptr);
}

TEST(ModelCache, ThreadsThatAskAtOnceGetOneModel) {
  RandomNetwork network(SmallConfig(), 6);
  const auto places = network.Write();
  std::vector<std::shared_ptr<const NativeModel>> models(7);
  std::vector<std::thread> threads;
  for (auto& model : models) {
    threads.emplace_back([&] { model = SharedModel(network.path(), places, network.config()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& model : models) EXPECT_EQ(model, models.front());
}

TEST(ModelCache, AFailureIsNotKept) {
  RandomNetwork network(SmallConfig(), 7);
  auto places = network.Write();
  const auto whole = places;
  places.erase("trunk.layers.0.up.weight");
  EXPECT_THROW(SharedModel(network.path(), places, network.config()), std::invalid_argument);
  EXPECT_THROW(SharedModel(network.path(), places, network.config()), std::invalid_argument);
  EXPECT_NE(SharedModel(network.path(), whole, network.config()), nullptr);
  EXPECT_THROW(SharedModel("/nowhere/at/all", whole, network.config()), std::invalid_argument);
}

}  // namespace
}  // namespace modelsat
