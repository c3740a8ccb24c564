/* The rows of the table of adapter methods, in the order of messages.  A new method is one line here, and its file.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_METHODS_H
#define BAL_ADAPTER_METHODS_H

#include "lib/adapter/method.h"

#define BAL_METHODS(row)                                                                                               \
    row(lora)         /* lora.c */                                                                                     \
        row(dora)     /* dora.c */                                                                                     \
        row(loha)     /* loha.c */                                                                                     \
        row(lokr)     /* lokr.c */                                                                                     \
        row(ia3)      /* ia3.c */                                                                                      \
        row(vera)     /* vera.c */                                                                                     \
        row(adalora)  /* adalora.c, ranks.c */                                                                         \
        row(houlsby)  /* bottleneck.c */                                                                               \
        row(pfeiffer) /* bottleneck.c */                                                                               \
        row(bitfit)   /* bitfit.c */

#define BAL_METHOD_DECLARE(name) extern const bal_method bal_method_##name;
BAL_METHODS(BAL_METHOD_DECLARE)

#endif
