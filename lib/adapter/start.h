/* The starts of low-rank adapters by name (peft's init_lora_weights).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_START_H
#define BAL_ADAPTER_START_H

#include <stdbool.h>
#include <stddef.h>

typedef enum bal_start_kind {
    BAL_START_LORA,        /* "lora": A kaiming uniform, B = 0 */
    BAL_START_GAUSSIAN,    /* "gaussian": A normal (0, 1/r^2), B = 0 */
    BAL_START_ORTHOGONAL,  /* "orthogonal": rows of A and columns of B span orthogonal halves; B A = 0 */
    BAL_START_PISSA,       /* "pissa": the r leading triplets of W, exact; these and the following are residual */
    BAL_START_PISSA_NITER, /* "pissa_niter_N": the same from a random block and N power steps */
    BAL_START_OLORA,       /* "olora": W = Q R, B0 = Q[:, :r], A0 = R[:r] */
    BAL_START_MILORA,      /* "milora": the r smallest triplets of W */
    BAL_START_CORDA,       /* "corda": triplets of W C, C the inputs' covariance over calibration data */
    BAL_START_LOFTQ        /* "loftq": triplets of what packing W loses (packed_start.h); made with the model */
} bal_start_kind;

typedef struct bal_start {
    bal_start_kind kind;
    size_t niter;
} bal_start;

#define BAL_START_NAMES                                                                                                \
    "lora, gaussian, orthogonal, pissa, pissa_niter_N (N from 1 to 1000), olora, milora, corda or loftq"

/* false for an unknown name. */
bool bal_start_parse(const char *name, bal_start *out);
/* A0, B0 of W stay with the adapter: y = Wx + s(BA - B0A0)x. */
bool bal_start_is_residual(bal_start_kind kind);
/* The same factors come out when the start is made again from the same W, without a seed or data. */
bool bal_start_can_be_redone(bal_start_kind kind);

#endif
