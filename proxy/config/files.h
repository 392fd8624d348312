/* Small files, read whole. */
#ifndef EP_CONFIG_FILES_H
#define EP_CONFIG_FILES_H

#include "base/base.h"

/* Reads a regular file of at most `max` bytes. The text is malloc'd and a NUL follows it. False with err, without the
 * path. */
bool ep_file_read(struct ep_str path, size_t max, struct ep_str *out, struct ep_error *err);
/* Frees what was read; `secret`: its bytes are overwritten first. */
void ep_file_free(struct ep_str *text, bool secret);
/* Writes a file of that mode by a temporary beside it and a rename. 0 or -errno. */
int ep_file_write(const char *path, struct ep_str text, unsigned mode);

#endif
