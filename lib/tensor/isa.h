/* Hot loops for several instruction sets.  A file x_isa.c is compiled once per set with BAL_ISA = base, avx2 or
 * avx512; it exports one const table of functions, and its callers pick the table of the running machine:
 *
 *   in x_isa.c:   static void dot(...) {...}
 *                 const bal_x_ops BAL_ISA_NAME(bal_x_ops) = {dot};
 *   in x.c:       BAL_ISA_DECLARE(bal_x_ops, bal_x_ops);
 *                 const bal_x_ops *ops = BAL_ISA_PICK(bal_x_ops);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_ISA_H
#define BAL_TENSOR_ISA_H

/* NAME_avx2 etc. in the file that is being compiled. */
#define BAL_ISA_PASTE2(name, isa) name##_##isa
#define BAL_ISA_PASTE(name, isa)  BAL_ISA_PASTE2(name, isa)
#define BAL_ISA_NAME(name)        BAL_ISA_PASTE(name, BAL_ISA)

/* Declares the tables of all instruction sets (put it in the header that both files include); PICK gives the
 * address of the one to use. */
#ifdef BAL_HAVE_ISA_avx512
#define BAL_ISA_DECLARE(type, name) extern const type name##_base, name##_avx2, name##_avx512
#define BAL_ISA_PICK(name)                                                                                             \
    (bal_isa_level() == BAL_ISA_LEVEL_AVX512 ? &name##_avx512                                                          \
                                             : (bal_isa_level() == BAL_ISA_LEVEL_AVX2 ? &name##_avx2 : &name##_base))
#else
#define BAL_ISA_DECLARE(type, name) extern const type name##_base
#define BAL_ISA_PICK(name)          (&name##_base)
#endif

typedef enum bal_isa {
    BAL_ISA_LEVEL_BASE = 0,
    BAL_ISA_LEVEL_AVX2 = 1,  /* with FMA and F16C */
    BAL_ISA_LEVEL_AVX512 = 2 /* F, BW, VL, DQ */
} bal_isa;

/* The best set that the machine has and the program was built with.  BALORA_ISA=base|avx2|avx512 in the
 * environment asks for a smaller one; a larger one than the machine has is not given.  Cheap; any thread. */
bal_isa bal_isa_level(void);
const char *bal_isa_name(void);

#endif
