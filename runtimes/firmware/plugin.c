/* Counts executions of translated blocks in QEMU and writes them at exit: address, instructions, executions.
 *
 * Debian ships the plugin interface in the binary but not its header, hence the prototypes. */
#define _POSIX_C_SOURCE 200809L /* strdup */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*call)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *block, void (*call)(unsigned, void *), int flags, void *user);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*call)(plugin_id, void *), void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_VERSION;

typedef struct node {
    struct node *next;
    uint64_t address, instructions, executions;
} node;

static node *blocks;
static char *path;

static void executed(unsigned core, void *user)
{
    (void)core;
    ((node *)user)->executions++;
}

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    node *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        abort();
    fresh->address = qemu_plugin_tb_vaddr(block);
    fresh->instructions = qemu_plugin_tb_n_insns(block);
    fresh->next = blocks;
    blocks = fresh;
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, fresh);
}

static void ended(plugin_id id, void *user)
{
    (void)id;
    (void)user;
    FILE *out = fopen(path, "w");
    if (!out)
        abort();
    for (node *each = blocks; each; each = each->next)
        if (each->executions)
            fprintf(out, "%llu %llu %llu\n", (unsigned long long)each->address,
                    (unsigned long long)each->instructions, (unsigned long long)each->executions);
    fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int count, char **options)
{
    (void)info;
    if (count != 1 || strncmp(options[0], "out=", 4) != 0)
        return 1;
    path = strdup(options[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
