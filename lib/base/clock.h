/* Time and resources of this process.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_BASE_CLOCK_H
#define BAL_BASE_CLOCK_H

#include <stdint.h>

double bal_clock_seconds(void);      /* monotonic, for differences */
int64_t bal_clock_unix_ms(void);     /* UTC */
int64_t bal_peak_rss_bytes(void);    /* largest resident size so far (VmHWM) */
int64_t bal_free_memory_bytes(void); /* MemAvailable, also bounded by the cgroup's limit and ulimit -v; -1 if unknown */

#endif
