// How a packed weight lies: in panels of 48 outputs; within a panel inputs go in pairs, [panels, in / 2, 48, 2].

#pragma once

#include "vectors.h"

constexpr int VECTORS = 3, WIDTH = VECTORS * LANES;
