/* The commands of the program: each returns the exit status; argv[0] is the command's name.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TOOLS_COMMANDS_H
#define BAL_TOOLS_COMMANDS_H

/* In alphabetical order, one a line; each has its line in the table of balora.c. */
int cmd_analyze(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_data(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_evaluate(int argc, char **argv);
int cmd_forward(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_judge(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_pretrain(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_runs(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_train(int argc, char **argv);

#endif
