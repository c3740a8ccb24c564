/* balora evaluate: requests from a file, perplexity, or tasks.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"

#include "evaluate/served.h"
#include "tools/commands.h"

#define AT(FIELD) offsetof(evaluate_config, FIELD)
static const bal_option k_options[] = {
    {"model", 'm', BAL_OPTION_PATH, AT(model), NULL, 0, 0, NULL, NULL, "Model",
     "Hugging Face folder or GGUF file; openai:NAME: a model that --base-url serves"},
    {"adapter", 'a', BAL_OPTION_PATHS, AT(adapters), NULL, 0, 0, NULL, NULL, "Model",
     "adapter folder (PEFT); several: the model's own figures and those of each, side by side"},
    {"initial_adapter", 0, BAL_OPTION_PATH, AT(initial_adapter), NULL, 0, 0, NULL, NULL, "Model",
     "initial factors of a PiSSA adapter that lacks them"},
    {"tokenizer", 0, BAL_OPTION_PATH, AT(tokenizer), NULL, 0, 0, NULL, NULL, "Model",
     "tokenizer.json, its folder or a GGUF file (default: the model's)"},
    {"base_url", 0, BAL_OPTION_TEXT, AT(base_url), "https://api.openai.com/v1", 0, 0, NULL, NULL, "Served model",
     "OpenAI-compatible server of --model openai:NAME (balora serve, vLLM ...)"},
    {"key_env", 0, BAL_OPTION_TEXT, AT(key_env), "OPENAI_API_KEY", 0, 0, NULL, NULL, "Served model",
     "environment variable with the key for --base-url"},
    {"at_once", 0, BAL_OPTION_INT, AT(at_once), "8", 1, 64, NULL, NULL, "Served model", "requests at a time"},
    {"tries", 0, BAL_OPTION_INT, AT(tries), "6", 1, 100, NULL, NULL, "Served model", "tries of a request"},
    {"timeout", 0, BAL_OPTION_INT, AT(timeout), "300", 1, 86400, NULL, NULL, "Served model", "seconds of one try"},
    {"back_off", 0, BAL_OPTION_REAL, AT(back_off), "1", 0.001, 60, NULL, NULL, "Served model",
     "seconds before the second try, doubled each time; Retry-After comes first"},
    {"tasks", 't', BAL_OPTION_LIST, AT(tasks), NULL, 0, 0, NULL, "task", "What",
     "names or groups (glue, gsm8k, bbq ...; --list), or task files (my.json)"},
    {"suite", 0, BAL_OPTION_TEXT, AT(suite), NULL, 0, 0, NULL, NULL, "What",
     "paper-mini: the tasks of a small table, with their numbers of items; what cannot run says why"},
    {"list", 0, BAL_OPTION_FLAG, AT(list), NULL, 0, 0, NULL, NULL, "What", "the tasks and groups there are"},
    {"show", 0, BAL_OPTION_TEXT, AT(show), NULL, 0, 0, NULL, NULL, "What",
     "a task: prints exactly what is asked for --item"},
    {"rescore", 0, BAL_OPTION_LIST, AT(rescore), NULL, 0, 0, NULL, NULL, "What",
     "run, or runs with parts of the items (shards): judges the stored outputs again, without a model"},
    {"requests", 'r', BAL_OPTION_PATH, AT(requests), NULL, 0, 0, NULL, NULL, "What",
     "JSON lines: {\"context\", \"continuation\"} or {\"prompt\", \"max_new_tokens\", \"until\" ...}"},
    {"perplexity", 0, BAL_OPTION_PATH, AT(perplexity), NULL, 0, 0, NULL, NULL, "What",
     "a text, JSON lines of {\"text\"} or {\"ids\"}, or JSON {\"input_ids\": [[...]]}"},
    {"compare", 0, BAL_OPTION_LIST, AT(compare), NULL, 0, 0, NULL, NULL, "What",
     "two runs, paired by item: McNemar, bootstrap, Holm, detectable effect"},
    {"across", 0, BAL_OPTION_LIST, AT(across), NULL, 0, 0, NULL, NULL, "What",
     "runs that differ in their seeds: mean and standard deviation of each figure over them"},
    {"resamples", 0, BAL_OPTION_INT, AT(resamples), "10000", 1, 1e7, NULL, NULL, "What",
     "of the bootstrap of --compare"},
    {"data", 'd', BAL_OPTION_PATH, AT(data), NULL, 0, 0, NULL, NULL, "Tasks",
     "folder with the data sets, e.g. gsm8k/test.jsonl (default: BALORA_DATA)"},
    {"limit", 'L', BAL_OPTION_INT, AT(limit), "0", 0, 1e9, NULL, NULL, "Tasks", "only the first N items; 0: all"},
    {"item", 0, BAL_OPTION_INT, AT(item), "0", 0, 1e9, NULL, NULL, "Tasks", "item for --show"},
    {"item_range", 0, BAL_OPTION_TEXT, AT(item_range), NULL, 0, 0, NULL, NULL, "Tasks",
     "FROM:TO: items FROM to TO - 1, with the examples they have in a whole run"},
    {"shard", 0, BAL_OPTION_TEXT, AT(shard), NULL, 0, 0, NULL, NULL, "Tasks",
     "I/N: the I-th of N parts; --rescore RUN,RUN,... makes them one"},
    {"num_fewshot", 'f', BAL_OPTION_INT, AT(num_fewshot), "-1", -1, 1000, NULL, NULL, "Tasks",
     "worked examples in the prompt; -1: the task's number"},
    {"max_gen_toks", 0, BAL_OPTION_INT, AT(max_gen_toks), "0", 0, 1e6, NULL, "max_new_tokens", "Tasks",
     "most tokens of an answer; 0: the task's number"},
    {"repeats", 0, BAL_OPTION_INT, AT(repeats), "0", 0, 1024, NULL, NULL, "Tasks",
     "answers an item where a task samples; 0: the task's number"},
    {"seed", 0, BAL_OPTION_INT, AT(seed), "1234", 0, 9e15, NULL, NULL, "Tasks", "of sampled answers"},
    {"fewshot_seed", 0, BAL_OPTION_INT, AT(fewshot_seed), "1234", 0, 4294967295, NULL, NULL, "Tasks",
     "of the draw of worked examples, as Python draws them"},
    {"apply_chat_template", 0, BAL_OPTION_FLAG, AT(apply_chat_template), NULL, 0, 0, NULL, "chat", "Tasks",
     "prompts as conversations (--chat); of a served model: by chat completions"},
    {"fewshot_as_multiturn", 0, BAL_OPTION_FLAG, AT(fewshot_as_multiturn), "true", 0, 0, NULL, NULL, "Tasks",
     "worked examples are turns of the conversation"},
    {"system_instruction", 0, BAL_OPTION_TEXT, AT(system_instruction), NULL, 0, 0, NULL, NULL, "Tasks",
     "system message of a conversation; in plain text it stands before everything else"},
    {"equivalence_command", 0, BAL_OPTION_TEXT, AT(equivalence_command), NULL, 0, 0, NULL, NULL, "Tasks",
     "asked about each answer of mathematics besides the task's rule (filter 'equivalence'): reads JSON lines "
     "{\"prediction\", \"gold\", \"output\", \"doc\"}, answers {\"equal\": true|false}"},
    {"equivalence_timeout", 0, BAL_OPTION_INT, AT(equivalence_timeout), "30", 1, 3600, NULL, NULL, "Tasks",
     "seconds that it has for one answer"},
    {"resume", 0, BAL_OPTION_CHOICE, AT(resume), "auto", 0, 0, "auto|never", NULL, "Tasks",
     "go on with an unfinished run of the same configuration"},
    {"log_samples", 0, BAL_OPTION_PATH, AT(log_samples), NULL, 0, 0, NULL, NULL, "Output",
     "folder for the items, as lm-evaluation-harness logs them"},
    {"output_path", 0, BAL_OPTION_PATH, AT(output_path), NULL, 0, 0, NULL, NULL, "Output",
     "folder for MODEL/results_TIME.json and samples, as lm-evaluation-harness writes them"},
    {"out", 'o', BAL_OPTION_PATH, AT(out), NULL, 0, 0, NULL, NULL, "Output",
     "file for the answers to --requests, or the rows of --perplexity"},
    {"name", 0, BAL_OPTION_TEXT, AT(name), NULL, 0, 0, NULL, NULL, "Output", "name of the run"},
    {"experiment", 0, BAL_OPTION_TEXT, AT(experiment), NULL, 0, 0, NULL, NULL, "Output", "experiment of the run"},
    {"batch_size", 'b', BAL_OPTION_INT, AT(batch_size), "0", 0, 128, NULL, NULL, "Speed",
     "most sequences at a time; 0: as memory allows, at most 32 (changes no result)"},
    {"compute", 0, BAL_OPTION_CHOICE, AT(compute), "f32", 0, 0, "f32|bf16", NULL, "Speed",
     "operands of the products with the model's matrices; bf16 is faster where the machine multiplies it, and changes "
     "results (0.4 % of an operand); sums, adapters and attention stay f32"},
    {"cache_mib", 0, BAL_OPTION_INT, AT(cache_mib), "0", 0, 1048576, NULL, NULL, "Speed",
     "memory for keys and values; 0: a quarter of what is free, at most 2048"},
    {"max_batch_tokens", 0, BAL_OPTION_INT, AT(max_batch_tokens), "0", 0, 1e9, NULL, NULL, "Speed",
     "most tokens, prompts and answers, that are held at a time; 0: as --cache-mib allows (changes no result)"},
    {"max_length", 0, BAL_OPTION_INT, AT(max_length), "0", 0, 1e7, NULL, NULL, "Model",
     "most tokens of prompt and answer; 0: the model's context"},
};

static const bal_command k_command = {
    .name = "evaluate",
    .usage = "--model PATH [--adapter DIR ...] --tasks A,B | --requests FILE | --perplexity FILE [options]\n"
             "       balora evaluate --compare RUN RUN | --across A,B,... | --rescore RUN | --list | --show TASK "
             "--item N [options]",
    .summary = "scores a model on tasks",
    .description =
        "  balora evaluate --model M --tasks gsm8k --data DIR --limit 100\n"
        "  balora evaluate --model openai:NAME --base-url http://127.0.0.1:8080/v1 --tokenizer T --tasks sst2\n"
        "  balora evaluate --model BERT --tasks crows_pairs_masked,stereoset_masked --data DIR\n"
        "  balora evaluate --model M --requests in.jsonl --out out.jsonl\n"
        "  balora evaluate --model M --perplexity text.txt\n"
        "  balora evaluate --compare lora pissa\n"
        "  balora evaluate --across lora-1,lora-2,lora-3\n"
        "  balora evaluate --show gsm8k --item 3 --data DIR\n"
        "Results do not depend on the batch, the order or the threads.  Items are stored as they are finished;\n"
        "the same command goes on where it was stopped.",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
    .max_positional = 1, /* the second run of --compare */
};

static bal_status compare(const evaluate_config *c, const bal_options *options)
{
    size_t n = 0;
    const char *const *words = bal_options_positional(options, &n);
    const char *second = n == 1 ? words[0] : c->compare.n == 2 ? c->compare.items[1] : NULL;
    if (c->compare.n + n != 2 || c->model != NULL || c->tasks.n > 0 || c->requests != NULL || c->perplexity != NULL)
        return bal_fail(BAL_EINVAL, "--compare takes two runs and neither a model nor tasks");
    const bal_common *common = bal_options_common(options);
    bal_store *store = NULL;
    bal_buf out = {0};
    bal_status status;
    BAL_TRY(bal_store_open(&store, common->db, false));
    BAL_TRY(evaluate_compare(store, c->compare.items[0], second, (size_t)c->resamples, common->json, &out));
    status = evaluate_write(NULL, &out);
out:
    bal_store_close(store);
    bal_buf_dispose(&out);
    return status;
}

static bal_status across(const evaluate_config *c, const bal_common *common)
{
    bal_store *store = NULL;
    bal_buf out = {0};
    bal_status status;
    BAL_TRY(bal_store_open(&store, common->db, false));
    BAL_TRY(evaluate_across(store, &c->across, common->json, &out));
    status = evaluate_write(NULL, &out);
out:
    bal_store_close(store);
    bal_buf_dispose(&out);
    return status;
}

static bal_status evaluate(const evaluate_config *c, const bal_options *options, int argc, char **argv)
{
    const bal_common *common = bal_options_common(options);
    bal_bundle b = {0};
    bal_status status;
    size_t n_words = 0;
    const char *const *words = bal_options_positional(options, &n_words);
    if (c->compare.n > 0)
        return compare(c, options);
    if (n_words > 0)
        return bal_fail(BAL_EINVAL, "'%s' is not expected here", words[0]);
    if (c->across.n > 0)
        return across(c, common);
    if (c->list)
        return evaluate_list(c, common);
    if (c->show != NULL)
        return evaluate_show(c, common);
    if (c->rescore.n > 0)
        return evaluate_rescore(c, common, argc, argv);
    int modes = (c->tasks.n > 0 || c->suite != NULL) + (c->requests != NULL) + (c->perplexity != NULL);
    if (c->model == NULL || modes != 1)
        return bal_fail(BAL_EINVAL,
                        "--model and one of --tasks, --suite, --requests or --perplexity, or --compare, are needed");
    BAL_TRY(bal_options_start(options));
    bal_interrupt_install();
    BAL_TRY(served_named(c) ? served_load(c, &b)
                            : bal_bundle_load_any(&b, c->model, c->adapter, c->initial_adapter, c->tokenizer));
    if (b.model != NULL && b.model->config.masked && c->tasks.n == 0 && c->suite == NULL)
        BAL_TRY(bal_fail(BAL_EUNSUPPORTED,
                         "'%s' is a masked language model (%s), which --requests and --perplexity cannot ask", c->model,
                         b.model->config.model_type));
    if (b.note[0] != '\0')
        bal_log_line(&common->log, BAL_LOG_INFO, "%s", b.note);
    if (c->adapters.n > 1)
        status = evaluate_several(c, common, &b, argc, argv);
    else if (c->requests != NULL)
        status = evaluate_requests(c, common, &b);
    else if (c->perplexity != NULL)
        status = evaluate_perplexity(c, common, &b);
    else
        status = evaluate_tasks(c, common, &b, argc, argv);
out:
    bal_bundle_dispose(&b);
    return status;
}

int cmd_evaluate(int argc, char **argv)
{
    evaluate_config c = {0};
    bal_options *options = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&options, &k_command, argc, argv, &c, &help);
    if (status == BAL_OK && c.adapters.n == 1)
        c.adapter = c.adapters.items[0];
    if (status == BAL_OK && !help)
        status = evaluate(&c, options, argc, argv);
    status = bal_command_finish(&k_command, status);
    bal_options_free(options);
    return (int)status;
}
