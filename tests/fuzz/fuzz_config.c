/* link: ep_config */
/* Configurations: whatever the bytes are, there is a configuration or an error with a place; and a configuration that
 * was taken prints as a text that is taken too, and prints the same. */
#include <stdlib.h>

#include "config/config.h"

#define CHECK(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    struct ep_problems problems;
    struct ep_config *c, *again;
    char *text;

    ep_problems_init(&problems);
    c = ep_config_parse(ep_str_n(data, n), "fuzz", &problems);
    text = ep_problems_text(&problems, true);
    CHECK(c || (problems.errors && *text));
    free(text);
    ep_problems_fini(&problems);
    if (!c)
        return 0;
    text = ep_config_print(c, true);
    ep_problems_init(&problems);
    again = ep_config_parse(ep_str(text), "print", &problems);
    CHECK(again);
    char *text_again = ep_config_print(again, true);
    CHECK(strcmp(text, text_again) == 0);
    free(text_again);
    free(text);
    ep_config_unref(again);
    ep_config_unref(c);
    ep_problems_fini(&problems);
    return 0;
}
