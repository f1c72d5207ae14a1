#include "genie/data/synthetic_world.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <vector>

#include "genie/core/error.h"
#include "genie/data/shuffle.h"
#include "genie/data/video_writer.h"

namespace genie::data {
namespace {

enum Action : int64_t { noop, left, right, up, down, num_actions };

struct Rectangle {
  int64_t top, left, bottom, right;  // bottom and right are one past
  bool overlaps(const Rectangle& other) const {
    return top < other.bottom && other.top < bottom && left < other.right && other.left < right;
  }
};

using Colour = std::array<uint8_t, 3>;

Colour random_colour(RandomSequence& random, int64_t low, int64_t high) {
  Colour colour;
  for (auto& value : colour) value = static_cast<uint8_t>(low + random.below(high - low + 1));
  return colour;
}

/// One episode's level and the sprite in it. Positions and speeds count 1/64 pixels.
class World {
 public:
  World(int64_t height, int64_t width, uint64_t seed)
      : height_(height),
        width_(width),
        size_(std::max<int64_t>(2, std::min(height, width) / 8)),
        random_(seed) {
    const int64_t ground = std::max<int64_t>(1, height / 10);
    platforms_.push_back({height - ground, 0, height, width});
    for (int64_t i = 0; i < 3; ++i) {
      const int64_t thickness = std::max<int64_t>(1, height / 24);
      const int64_t length = width / 6 + random_.below(width / 6 + 1);
      const int64_t top = height * (3 + 2 * i) / 10 + random_.below(height / 12 + 1);
      const int64_t begin = random_.below(std::max<int64_t>(1, width - length));
      platforms_.push_back({top, begin, top + thickness, begin + length});
    }
    sprite_ = random_colour(random_, 200, 255);
    sprite_[random_.below(3)] = 40;  // never grey
    draw_background();
    x_ = random_.below(width - size_ + 1) * unit;
    y_ = 0;
  }

  void draw(uint8_t* frame) const {
    std::copy(background_.begin(), background_.end(), frame);
    const auto box = at_position(x_, y_);
    fill(frame, box, sprite_);
    // An eye shows which way it looks.
    const int64_t eye = std::max<int64_t>(1, size_ / 4);
    const int64_t side = looks_right_ ? box.right - 2 * eye : box.left + eye;
    fill(frame, {box.top + eye, side, box.top + 2 * eye, side + eye}, {0, 0, 0});
  }

  /// Draws the next action; each is held for 3 to 8 frames.
  int64_t choose() {
    if (held_-- <= 0) {
      action_ = random_.below(num_actions);
      held_ = 2 + random_.below(6);
    }
    return action_;
  }

  void step(int64_t action) {
    const int64_t run = size_ * unit / 3;  // a frame
    const int64_t sideways = action == left ? -run : action == right ? run : 0;
    if (sideways != 0) looks_right_ = sideways > 0;
    const bool grounded = !free(x_, y_ + unit);
    if (action == up && grounded) fall_ = -size_ * unit * 9 / 10;
    fall_ = std::min(fall_ + size_ * unit * (action == down ? 3 : 1) / 8, size_ * unit);
    move(x_, sideways);
    if (!move(y_, fall_)) fall_ = 0;
  }

 private:
  static constexpr int64_t unit = 64;

  Rectangle at_position(int64_t x, int64_t y) const {
    return {y / unit, x / unit, y / unit + size_, x / unit + size_};
  }
  bool free(int64_t x, int64_t y) const {
    if (x < 0 || y < 0 || x > (width_ - size_) * unit || y > (height_ - size_) * unit) return false;
    const auto box = at_position(x, y);
    return std::none_of(platforms_.begin(), platforms_.end(), [&](const auto& p) { return p.overlaps(box); });
  }
  /// Moves a coordinate by up to `distance`, at most a pixel at a time; false where something is in the way.
  bool move(int64_t& coordinate, int64_t distance) {
    while (distance != 0) {
      const int64_t before = coordinate;
      const int64_t part = std::clamp<int64_t>(distance, -unit, unit);
      coordinate += part;
      if (!free(x_, y_)) {
        coordinate = before;
        return false;
      }
      distance -= part;
    }
    return true;
  }
  void fill(uint8_t* frame, const Rectangle& box, const Colour& colour) const {
    for (int64_t y = std::max<int64_t>(0, box.top); y < std::min(box.bottom, height_); ++y) {
      for (int64_t x = std::max<int64_t>(0, box.left); x < std::min(box.right, width_); ++x) {
        std::copy(colour.begin(), colour.end(), frame + (y * width_ + x) * 3);
      }
    }
  }
  /// Tiles of slightly different brightness over a vertical gradient, then the platforms.
  void draw_background() {
    background_.resize(height_ * width_ * 3);
    const Colour sky = random_colour(random_, 40, 130);
    const uint64_t texture = random_.next();
    for (int64_t y = 0; y < height_; ++y) {
      for (int64_t x = 0; x < width_; ++x) {
        const auto noise =
            static_cast<int64_t>(mix_seed(texture, y * 16 / height_, x * 16 / width_) % 25) - 12;
        for (int64_t c = 0; c < 3; ++c) {
          const int64_t value = sky[c] + noise + 40 * y / height_;
          background_[(y * width_ + x) * 3 + c] = static_cast<uint8_t>(std::clamp<int64_t>(value, 0, 255));
        }
      }
    }
    const Colour stone = random_colour(random_, 10, 60);
    for (const auto& platform : platforms_) fill(background_.data(), platform, stone);
  }

  int64_t height_, width_, size_;
  RandomSequence random_;
  std::vector<Rectangle> platforms_;
  std::vector<uint8_t> background_;
  Colour sprite_;
  int64_t x_ = 0, y_ = 0, fall_ = 0;
  bool looks_right_ = true;
  int64_t action_ = noop, held_ = 0;
};

}  // namespace

void write_synthetic_world(const std::string& path, int64_t num_frames, int64_t height, int64_t width,
                           int64_t episode_length, uint64_t seed) {
  check(num_frames >= 1 && episode_length >= 1 && height >= 8 && width >= 8,
        "a synthetic world needs num_frames and episode_length >= 1 and height and width >= 8, found ",
        num_frames, ", ", episode_length, ", ", height, " and ", width);
  VideoWriter writer(path, height, width, {.fps = 15, .env = "synthetic", .num_actions = num_actions});
  for (int64_t begin = 0; begin < num_frames; begin += episode_length) {
    const int64_t length = std::min(episode_length, num_frames - begin);
    World world(height, width, mix_seed(seed, begin / episode_length));
    auto frame = at::empty({1, height, width, 3}, at::kByte);
    for (int64_t t = 0; t < length; ++t) {
      world.draw(frame.data_ptr<uint8_t>());
      const int64_t action = world.choose();
      writer.append(frame, at::full({1}, action, at::kLong));
      world.step(action);
    }
    writer.end_episode();
  }
  writer.close();
}

}  // namespace genie::data
