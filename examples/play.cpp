// Plays a trained world from C++: starts from a recorded frame, takes the actions named, writes what came.
//
//   build/examples/play runs/demo runs/demo/boxing.h5 123 driven.h5 0 0 3 3
//
// driven.h5 is a video file as any other (docs/data_format.md): the recorded frame, then one an action.
#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "genie/core/error.h"
#include "genie/data/transforms.h"
#include "genie/data/video_file.h"
#include "genie/data/video_writer.h"
#include "genie/inference/world_session.h"
#include "genie/training/run.h"

namespace {

struct Options {
  std::string run, recording, out;
  int64_t frame = 0;
  std::vector<int64_t> actions;
  uint64_t seed = 0;
};

void play(const Options& options) {
  genie::models::Genie world = genie::training::load_genie(options.run);
  const auto& config = world->config();

  const genie::data::VideoFile recording(options.recording);
  genie::check(options.frame >= 0 && options.frame < recording.num_frames(), options.recording,
               " has frames 0..", recording.num_frames() - 1, ", frame ", options.frame, " was asked for");
  const at::Tensor prompt = genie::data::resize_frames(recording.read_frames(options.frame, 1),
                                                       config.data.height, config.data.width);

  // Frames are uint8 (B,H,W,3) and actions int64 (B); here a batch of one.
  auto session =
      genie::inference::WorldSession::from_frames(world, prompt.unsqueeze(0), config.inference, options.seed);
  genie::data::VideoWriter writer(options.out, config.data.height, config.data.width,
                                  {.fps = recording.fps(), .env = "dream of " + recording.env()});
  writer.append(session.frame());
  for (const int64_t action : options.actions) {
    genie::check(action >= 0 && action < session.num_actions(), "actions are 0..", session.num_actions() - 1,
                 ", got ", action);
    writer.append(session.step(at::full({1}, action, at::kLong)));
  }
  writer.close();
  std::printf("%s: the recorded frame and %zu generated ones\n", options.out.c_str(), options.actions.size());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Play a trained world: start from a recorded frame, take actions, write the frames."};
  Options options;
  app.add_option("run", options.run, "run directory of a trained model")->required();
  app.add_option("recording", options.recording, "HDF5 video file")->required();
  app.add_option("frame", options.frame, "frame to start from, counted from 0")->required();
  app.add_option("out", options.out, "HDF5 file to write")->required();
  app.add_option("actions", options.actions, "latent actions, one a frame")->required();
  app.add_option("--seed", options.seed, "of everything random")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    play(options);
    return 0;
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "play: error: %s\n", error.what_without_backtrace());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "play: error: %s\n", error.what());
  }
  return 1;
}
