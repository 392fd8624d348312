/* What a call to a language model used, as far as it is known: filled by the filter `meter` while the answer passes, read by
 * limits, the access log and the audit. */
#ifndef EP_FILTER_USAGE_H
#define EP_FILTER_USAGE_H

#include "base/base.h"

#define EP_USAGE_MODEL_BYTES 96u

struct ep_usage {
    uint64_t input, output; /* tokens; all that were read, all that were written */
    uint64_t cached, cache_write; /* of input: read from the provider's cache, written to it */
    uint64_t reasoning;     /* of output */
    uint64_t cost_nano;     /* by the price list, billionths; of what is known by now */
    bool input_known, output_known; /* the answer said so; else it is an estimate of ours, made from text */
    bool answered;          /* an answer that isn't an error began */
    bool whole;             /* … and came to its end: of a stream, to the API's own last event */
    bool readable;          /* it was of a kind that could be read */
    bool priced;            /* the price list has the model */
    char model[EP_USAGE_MODEL_BYTES]; /* that the answer names, as JSON has it */
    unsigned model_n;       /* 0: it names none, or a longer one */
};

#endif
