/* A small world of generated word problems: people, things, numbers, and a dozen kinds of question.  Each problem
 * draws from its own stream, so that sets of different sizes share their beginnings.
 * SPDX-License-Identifier: Apache-2.0 */
#include "datasets/datasets.h"

#include "lib/base/rng.h"
#include "lib/io/json.h"

#include <stdio.h>
#include <string.h>

typedef struct person {
    const char *name, *he, *his, *group;
} person;

static const person k_people[] = {
    {"Anna", "She", "her", "f"},  {"Ben", "He", "his", "m"},   {"Clara", "She", "her", "f"},
    {"David", "He", "his", "m"},  {"Emma", "She", "her", "f"}, {"Felix", "He", "his", "m"},
    {"Grace", "She", "her", "f"}, {"Henry", "He", "his", "m"}, {"Ines", "She", "her", "f"},
    {"Jack", "He", "his", "m"},   {"Kira", "She", "her", "f"}, {"Leo", "He", "his", "m"},
    {"Maria", "She", "her", "f"}, {"Noah", "He", "his", "m"},  {"Olga", "She", "her", "f"},
    {"Paul", "He", "his", "m"},
};
static const char *const k_things[] = {"apples",  "books",   "marbles", "cards",    "pencils", "stamps",
                                       "cookies", "flowers", "shells",  "stickers", "coins",   "toys"};
static const char *const k_holders[] = {"boxes", "bags", "baskets", "jars", "shelves", "packs"};
static const char *const k_jobs[] = {"washing cars", "cutting grass", "walking dogs", "painting fences",
                                     "picking fruit"};

typedef struct scene {
    bal_rng rng;
    const person *who, *other;
    const char *thing, *holder, *job;
    bal_buf question, answer;
    long result;
} scene;

static long pick(scene *s, long low, long high)
{
    return low + (long)bal_rng_below(&s->rng, (uint64_t)(high - low + 1));
}

#define ASK(...) bal_buf_printf(&s->question, __VA_ARGS__)
#define SAY(...) bal_buf_printf(&s->answer, __VA_ARGS__)
#define BOTH(ask, say)                                                                                                 \
    do {                                                                                                               \
        bal_status asked = (ask);                                                                                      \
        return asked == BAL_OK ? (say) : asked;                                                                        \
    } while (0)

static bal_status buys(scene *s)
{
    long a = pick(s, 3, 40), b = pick(s, 2, 40), c = a + b;
    s->result = c;
    BOTH(ASK("%s has %ld %s. %s buys %ld more. How many %s does %s have now?", s->who->name, a, s->thing, s->who->he, b,
             s->thing, s->who->name),
         SAY("%s has %ld + %ld = <<%ld+%ld=%ld>>%ld %s now.", s->who->name, a, b, a, b, c, c, s->thing));
}

static bal_status gives(scene *s)
{
    long a = pick(s, 12, 60), b = pick(s, 2, 10), c = a - b;
    s->result = c;
    BOTH(ASK("%s has %ld %s and gives %ld of them to %s. How many %s are left?", s->who->name, a, s->thing, b,
             s->other->name, s->thing),
         SAY("%s has %ld - %ld = <<%ld-%ld=%ld>>%ld %s left.", s->who->name, a, b, a, b, c, c, s->thing));
}

static bal_status packs(scene *s)
{
    long a = pick(s, 2, 12), b = pick(s, 2, 12), c = a * b;
    s->result = c;
    BOTH(
        ASK("There are %ld %s with %ld %s in each. How many %s are there in all?", a, s->holder, b, s->thing, s->thing),
        SAY("There are %ld * %ld = <<%ld*%ld=%ld>>%ld %s in all.", a, b, a, b, c, c, s->thing));
}

static bal_status shares(scene *s)
{
    long each = pick(s, 2, 12), friends = pick(s, 2, 9), all = each * friends;
    s->result = each;
    BOTH(ASK("%s shares %ld %s equally among %ld friends. How many %s does each friend get?", s->who->name, all,
             s->thing, friends, s->thing),
         SAY("Each friend gets %ld / %ld = <<%ld/%ld=%ld>>%ld %s.", all, friends, all, friends, each, each, s->thing));
}

static bal_status half_as_many(scene *s)
{
    long half = pick(s, 2, 30), a = 2 * half, c = a + half;
    s->result = c;
    BOTH(ASK("%s sold %ld %s in April and half as many in May. How many %s did %s sell in both months?", s->who->name,
             a, s->thing, s->thing, s->who->name),
         SAY("%s sold %ld / 2 = <<%ld/2=%ld>>%ld %s in May.\n%s sold %ld + %ld = <<%ld+%ld=%ld>>%ld %s in both months.",
             s->who->name, a, a, half, half, s->thing, s->who->name, a, half, a, half, c, c, s->thing));
}

static bal_status adds_packs(scene *s)
{
    long a = pick(s, 3, 30), b = pick(s, 2, 9), c = pick(s, 2, 10), d = b * c, e = a + d;
    s->result = e;
    BOTH(ASK("%s has %ld %s. %s gets %ld %s with %ld %s each. How many %s does %s have in all?", s->who->name, a,
             s->thing, s->who->he, b, s->holder, c, s->thing, s->thing, s->who->name),
         SAY("The %s hold %ld * %ld = <<%ld*%ld=%ld>>%ld %s.\n%s has %ld + %ld = <<%ld+%ld=%ld>>%ld %s in all.",
             s->holder, b, c, b, c, d, d, s->thing, s->who->name, a, d, a, d, e, e, s->thing));
}

static bal_status earns(scene *s)
{
    long a = pick(s, 5, 15), b = pick(s, 2, 9), d = a * b, c = pick(s, 2, d < 40 ? d - 1 : 39), e = d - c;
    s->result = e;
    BOTH(ASK("%s earns $%ld an hour for %s. %s works %ld hours and spends $%ld. How many dollars are left?",
             s->who->name, a, s->job, s->who->he, b, c),
         SAY("%s earns %ld * %ld = $<<%ld*%ld=%ld>>%ld.\n%s has %ld - %ld = $<<%ld-%ld=%ld>>%ld left.", s->who->name, a,
             b, a, b, d, d, s->who->name, d, c, d, c, e, e));
}

static bal_status more_than(scene *s)
{
    long a = pick(s, 3, 30), b = pick(s, 2, 20), c = a + b, d = a + c;
    s->result = d;
    BOTH(ASK("%s has %ld %s. %s has %ld more than %s. How many %s do they have together?", s->who->name, a, s->thing,
             s->other->name, b, s->who->name, s->thing),
         SAY("%s has %ld + %ld = <<%ld+%ld=%ld>>%ld %s.\nTogether they have %ld + %ld = <<%ld+%ld=%ld>>%ld %s.",
             s->other->name, a, b, a, b, c, c, s->thing, a, c, a, c, d, d, s->thing));
}

static bal_status leftover(scene *s)
{
    long a = pick(s, 2, 9), b = pick(s, 4, 12), d = a * b, c = pick(s, 2, d - 1 < 20 ? d - 1 : 20), e = d - c;
    s->result = e;
    BOTH(ASK("%s fills %ld %s with %ld %s each. Then %s takes %ld %s out. How many %s are left?", s->who->name, a,
             s->holder, b, s->thing, s->other->name, c, s->thing, s->thing),
         SAY("%s fills in %ld * %ld = <<%ld*%ld=%ld>>%ld %s.\nAfter that %ld - %ld = <<%ld-%ld=%ld>>%ld %s are left.",
             s->who->name, a, b, a, b, d, d, s->thing, d, c, d, c, e, e, s->thing));
}

static bal_status twice(scene *s)
{
    long a = pick(s, 3, 30), b = 2 * a, c = a + b;
    s->result = c;
    BOTH(ASK("%s finds %ld %s on Monday and twice as many on Tuesday. How many %s does %s find on both days?",
             s->who->name, a, s->thing, s->thing, s->who->name),
         SAY("On Tuesday %s finds %ld * 2 = <<%ld*2=%ld>>%ld %s.\nOn both days %s finds %ld + %ld = <<%ld+%ld=%ld>>%ld "
             "%s.",
             s->who->name, a, a, b, b, s->thing, s->who->name, a, b, a, b, c, c, s->thing));
}

static bal_status age(scene *s)
{
    long a = pick(s, 6, 40), b = pick(s, 2, 12), years = pick(s, 2, 15), c = a + b, d = c + years;
    s->result = d;
    BOTH(ASK("%s is %ld years old. %s is %ld years older. How old will %s be in %ld years?", s->who->name, a,
             s->other->name, b, s->other->name, years),
         SAY("%s is %ld + %ld = <<%ld+%ld=%ld>>%ld years old.\nIn %ld years %s will be %ld + %ld = <<%ld+%ld=%ld>>%ld.",
             s->other->name, a, b, a, b, c, c, years, s->other->name, c, years, c, years, d, d));
}

static bal_status change(scene *s)
{
    long a = pick(s, 2, 9), b = pick(s, 2, 8), d = a * b, paid = (d / 20 + 1) * 20, e = paid - d;
    s->result = e;
    BOTH(ASK("%s buys %ld %s for $%ld each and pays with $%ld. How many dollars does %s get back?", s->who->name, a,
             s->thing, b, paid, s->who->name),
         SAY("The %s cost %ld * %ld = $<<%ld*%ld=%ld>>%ld.\n%s gets %ld - %ld = $<<%ld-%ld=%ld>>%ld back.", s->thing, a,
             b, a, b, d, d, s->who->name, paid, d, paid, d, e, e));
}

static const struct {
    const char *name;
    bal_status (*make)(scene *);
} k_kinds[] = {{"buys", buys},         {"gives", gives},           {"packs", packs}, {"shares", shares},
               {"half", half_as_many}, {"adds_packs", adds_packs}, {"earns", earns}, {"more_than", more_than},
               {"leftover", leftover}, {"twice", twice},           {"age", age},     {"change", change}};
enum { KINDS = sizeof k_kinds / sizeof *k_kinds, PEOPLE = sizeof k_people / sizeof *k_people };

size_t world_kinds(void)
{
    return KINDS;
}

bal_status world_problem(bal_buf *out, uint64_t seed, uint64_t index)
{
    bal_status status = BAL_OK;
    scene s = {0};
    char stream[48];
    (void)snprintf(stream, sizeof stream, "world/%llu", (unsigned long long)index);
    bal_rng_init(&s.rng, seed, stream);
    size_t kind = bal_rng_below(&s.rng, KINDS);
    size_t who = bal_rng_below(&s.rng, PEOPLE), other = bal_rng_below(&s.rng, PEOPLE - 1);
    s.who = &k_people[who];
    s.other = &k_people[other + (other >= who)];
    s.thing = k_things[bal_rng_below(&s.rng, sizeof k_things / sizeof *k_things)];
    s.holder = k_holders[bal_rng_below(&s.rng, sizeof k_holders / sizeof *k_holders)];
    s.job = k_jobs[bal_rng_below(&s.rng, sizeof k_jobs / sizeof *k_jobs)];
    BAL_TRY(k_kinds[kind].make(&s));
    BAL_TRY(bal_buf_printf(&s.answer, "\n#### %ld", s.result));
    BAL_TRY(bal_buf_text(out, "{\"question\":"));
    BAL_TRY(bal_json_put_text(out, bal_buf_cstr(&s.question)));
    BAL_TRY(bal_buf_text(out, ",\"answer\":"));
    BAL_TRY(bal_json_put_text(out, bal_buf_cstr(&s.answer)));
    BAL_TRY(bal_buf_printf(out, ",\"kind\":\"%s\",\"group\":\"%s\"}\n", k_kinds[kind].name, s.who->group));
out:
    bal_buf_dispose(&s.question);
    bal_buf_dispose(&s.answer);
    return status;
}
