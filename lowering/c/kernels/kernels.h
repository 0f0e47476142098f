/* Every kernel of the library. */
#ifndef ES_KERNELS_H
#define ES_KERNELS_H

#include "attention.h"
#include "conv.h"
#include "depthwise.h"
#include "elementwise.h"
#include "float.h"
#include "float_image.h"
#include "norm.h"
#include "pack.h"
#include "pool.h"
#include "resize.h"
#include "softmax.h"

#endif
