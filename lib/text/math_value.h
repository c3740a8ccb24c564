/* Mathematical equality of answers by value: a subset of LaTeX (or of Python's notation) is read and evaluated, exactly
 * as fractions where it can be, else numerically at several points for its variables.  Tuples, intervals, sets, lists,
 * unions and matrices are compared part by part.  This is this project's own rule ("math_numeric"): no computer algebra
 * stands behind it, and what it cannot read is compared as text.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_MATH_VALUE_H
#define BAL_TEXT_MATH_VALUE_H

#include "lib/base/status.h"

#include <complex.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum bal_math_notation {
    BAL_MATH_LATEX,
    BAL_MATH_PYTHON /* ** is the power, names have many letters, products are written */
} bal_math_notation;

typedef struct bal_math_value {
    bool exact; /* num / den, den > 0, in lowest terms; then z is its value */
    int64_t num, den;
    double complex z;
} bal_math_value;

/* The value of one expression at point 0, 1, ... (variables get other values at each point); false if it cannot be
 * read, or is not finite. */
bool bal_math_evaluate(const char *text, bal_math_notation notation, unsigned point, bal_math_value *out);

/* Whether two answers of MATH mean the same. */
bal_status bal_math_equal_value(const char *a, const char *b, bool *equal);
/* math_equal of BA-LoRA's 2024 code (inference/grader.py) as its requirements install it, that is without LaTeX:
 * numbers within 1e-4 of gold/100, gold or 100 gold; equality without brackets; tuples part by part; expressions in
 * Python's notation that are equal, or within 1e-3 as numbers.  Where the reference asks sympy, values are compared. */
bal_status bal_math_equal_balora(const char *prediction, const char *reference, bool *equal);

#endif
