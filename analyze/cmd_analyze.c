/* balora analyze: statistics of adapters and of generated texts.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"

#include "analyze/analyze.h"
#include "lib/io/json.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const bal_option k_options[] = {
    {"adapter", 'a', BAL_OPTION_PATH, offsetof(analyze_config, adapter), NULL, 0, 0, NULL, NULL, "spectrum",
     "PEFT folder; of a balora checkpoint the true update is found by itself"},
    {"against", 0, BAL_OPTION_PATH, offsetof(analyze_config, against), NULL, 0, 0, NULL, NULL, "similarity",
     "PEFT folder of the other adapter"},
    {"initial_adapter", 0, BAL_OPTION_PATH, offsetof(analyze_config, initial_adapter), NULL, 0, 0, NULL, NULL,
     "spectrum", "PEFT folder with the initial factors A0, B0 of a PiSSA adapter"},
    {"base", 0, BAL_OPTION_PATH, offsetof(analyze_config, base), NULL, 0, 0, NULL, "model", "spectrum",
     "the base model: amplification and intruders against it; a foreign exact PiSSA start is computed again"},
    {"intruders", 0, BAL_OPTION_INT, offsetof(analyze_config, intruders), "10", 0, 1e6, NULL, NULL, "spectrum",
     "with --base: leading directions of base + update to compare with all of the base's; 0 saves its full SVD"},
    {"intruder_eps", 0, BAL_OPTION_REAL, offsetof(analyze_config, intruder_eps), "0.5", 0, 1, NULL, NULL, "spectrum",
     "an intruder's largest cosine with a direction of the base is below this"},
    {"step", 0, BAL_OPTION_INT, offsetof(analyze_config, step), "-1", -1, 1e15, NULL, NULL, "spectrum",
     "checkpoint step to note in the database; -1: the final adapter"},
    {"run", 0, BAL_OPTION_TEXT, offsetof(analyze_config, run), NULL, 0, 0, NULL, NULL, "diversity",
     "evaluation run whose stored outputs are read: id, uuid, name or 'last'"},
    {"input", 0, BAL_OPTION_PATH, offsetof(analyze_config, input), NULL, 0, 0, NULL, NULL, "diversity",
     "JSON lines with the texts, instead of a run"},
    {"field", 0, BAL_OPTION_TEXT, offsetof(analyze_config, field), "output", 0, 0, NULL, NULL, "diversity",
     "key of the text in --input"},
    {"task", 0, BAL_OPTION_TEXT, offsetof(analyze_config, task), NULL, 0, 0, NULL, NULL, "diversity",
     "only this task of the run"},
    {"vocab", 0, BAL_OPTION_INT, offsetof(analyze_config, vocab), "0", 0, 1e9, NULL, NULL, "diversity",
     "vocabulary size V of EAD; 0 leaves EAD out"},
    {"max_pairs", 0, BAL_OPTION_INT, offsetof(analyze_config, max_pairs), "500", 0, 1e6, NULL, NULL, "diversity",
     "self-BLEU and ROUGE-L look at the first so many texts; 0: all"},
    {"name", 0, BAL_OPTION_TEXT, offsetof(analyze_config, name), NULL, 0, 0, NULL, NULL, "Records",
     "name of this analysis among the runs (reports join runs by name)"},
    {"store", 0, BAL_OPTION_FLAG, offsetof(analyze_config, store), "true", 0, 0, NULL, NULL, "Records",
     "keep the result in the run database"},
};

static const bal_command k_command = {
    .name = "analyze",
    .usage = "spectrum|similarity|diversity [options]",
    .summary = "statistics of an adapter's true update, or of generated texts",
    .description =
        "  balora analyze spectrum --adapter runs/ba-lora     singular values of the update, module by module\n"
        "  balora analyze spectrum --adapter runs/ba-lora --base M     and how it stands to the base weights\n"
        "  balora analyze similarity --adapter A --against B           subspace similarity of two updates, angles\n"
        "  balora analyze diversity --run last                how much the stored outputs repeat themselves",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
    .max_positional = 1,
};

bal_status analyze_put_number(bal_buf *b, const char *name, const char *convention, double value, const char *status,
                              bool *first)
{
    bal_status s = bal_buf_text(b, *first ? "" : ", ");
    *first = false;
    if (s == BAL_OK)
        s = bal_buf_printf(b, "{\"name\": \"%s\", \"convention\": ", name);
    if (s == BAL_OK)
        s = bal_json_put_text(b, convention);
    if (s == BAL_OK)
        s = bal_buf_text(b, ", \"value\": ");
    if (s == BAL_OK)
        s = bal_json_put_f64(b, value);
    if (s == BAL_OK && !isfinite(value))
        s = bal_buf_printf(b, ", \"status\": \"%s\"",
                           isinf(value)                ? "infinite"
                           : strcmp(status, "ok") == 0 ? "undefined"
                                                       : status);
    return s == BAL_OK ? bal_buf_text(b, "}") : s;
}

static bal_status run_analysis(const bal_options *options, const analyze_config *c, int argc, char **argv)
{
    const bal_common *common = bal_options_common(options);
    bal_store *store = NULL;
    int64_t run = 0, of = 0;
    size_t n = 0;
    const char *const *words = bal_options_positional(options, &n);
    bal_status status = BAL_OK;
    if (n == 0)
        return bal_fail(BAL_EINVAL, "what to analyse is missing: spectrum, similarity or diversity");
    bool spectrum = strcmp(words[0], "spectrum") == 0;
    bool similarity = strcmp(words[0], "similarity") == 0;
    if (!spectrum && !similarity && strcmp(words[0], "diversity") != 0)
        return bal_fail(BAL_EINVAL, "'%.60s' is unknown; spectrum, similarity and diversity can be analysed", words[0]);
    BAL_TRY(bal_options_start(options));
    if (similarity) /* of two adapters: nothing that a run's row could hold */
        return analyze_similarity(c, common);
    if (c->store || c->run != NULL)
        BAL_TRY(bal_store_open(&store, common->db, c->store));
    if (c->run != NULL && !spectrum)
        BAL_TRY(bal_run_find(store, c->run, &of)); /* before this analysis is itself the last run */
    if (c->store) {
        bal_run_spec spec = {
            .kind = "analyze", .name = c->name, .config_json = bal_options_json(options), .argc = argc, .argv = argv};
        BAL_TRY(bal_run_begin(store, &spec, &run));
        BAL_TRY(bal_run_tag(store, run, "analysis", words[0]));
    }
    status = spectrum ? analyze_spectrum(c, common, store, run) : analyze_diversity(c, common, store, run, of);
    if (run != 0) {
        char message[512];
        (void)snprintf(message, sizeof message, "%s", bal_error_message());
        bal_status ended = bal_run_end(store, run, status == BAL_OK ? "finished" : "failed", bal_exit_status(status),
                                       status == BAL_OK ? NULL : message);
        if (status != BAL_OK)
            (void)bal_fail(status, "%s", message); /* the first failure is the one to tell */
        else
            status = ended;
    }
out:
    bal_store_close(store);
    return status;
}

int cmd_analyze(int argc, char **argv)
{
    analyze_config config = {0};
    bal_options *options = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&options, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help)
        status = run_analysis(options, &config, argc, argv);
    bal_options_free(options);
    return bal_command_finish(&k_command, status);
}
