// The MMO's market: agents offer goods at prices of their own, one piece at a time; who buys gets the cheapest, of
// equal ones the oldest.
#pragma once

#include <array>
#include <cstdint>

#include "mmo_rules.h"

namespace dist_trainer::mmo {

struct Offer {
  std::int16_t seller;
  std::uint16_t life;  // of the seller: an offer outlives it, and then its gold goes to nobody
};

struct Market {
  struct Queue {
    std::array<Offer, kQueue> offers;
    std::int32_t first, count;
  };
  std::array<std::array<Queue, kPrices>, kGoods> queues;  // price - 1

  void clear() { queues = {}; }

  Queue& queue(int good, int price) {
    return queues[static_cast<std::size_t>(good)][static_cast<std::size_t>(price - 1)];
  }
  const Queue& queue(int good, int price) const {
    return queues[static_cast<std::size_t>(good)][static_cast<std::size_t>(price - 1)];
  }

  bool has_room(int good, int price) const { return queue(good, price).count < kQueue; }
  void offer(int good, int price, Offer offer) {
    Queue& at = queue(good, price);
    at.offers[static_cast<std::size_t>((at.first + at.count++) % kQueue)] = offer;
  }

  // The lowest price at which there is some; kPrices + 1 if there is none.
  int cheapest(int good) const {
    int price = 1;
    while (price <= kPrices && queue(good, price).count == 0) ++price;
    return price;
  }
  Offer take(int good, int price) {
    Queue& at = queue(good, price);
    const Offer offer = at.offers[static_cast<std::size_t>(at.first)];
    at.first = (at.first + 1) % kQueue;
    --at.count;
    return offer;
  }
  int offered(int good) const {
    int count = 0;
    for (int price = 1; price <= kPrices; ++price) count += queue(good, price).count;
    return count;
  }
};

}  // namespace dist_trainer::mmo
