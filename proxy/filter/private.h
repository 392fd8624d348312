/* Shared by the files of proxy/filter and nobody else. */
#ifndef EP_FILTER_PRIVATE_H
#define EP_FILTER_PRIVATE_H

#include "filter/chain.h"
#include "filter/filter.h"
#include "observe/observe.h"

#define EP_STREAM_MAGIC 0x73747265u

/* stream.c */
struct ep_stream *ep_stream_new(struct ep_server_listener *l, struct ep_leg *down);
extern const struct ep_leg_events ep_stream_down_events;
void ep_stream_check_end(struct ep_stream *s);   /* ends the stream when nothing is left to do */
void ep_stream_end(struct ep_stream *s);         /* queues the end */
void ep_stream_settle(struct ep_stream *s);      /* opens windows by what has left */
void ep_message_drop(struct ep_message *m);      /* all body bytes that are still here */

/* walk.c */
void ep_walk_request(struct ep_stream *s);       /* as far as it goes now */
void ep_walk_response(struct ep_stream *s);

/* report.c */
void ep_report_stream(struct ep_stream *s);      /* at the end: histograms, counters, access log */
void ep_report_refusal(struct ep_stream *s, const struct ep_refusal *r);
void ep_report_free(struct ep_chain *c);

/* route.c */
bool ep_match(const struct ep_match_config *m, struct ep_str host, struct ep_str path, struct ep_str method,
              const struct ep_headers *h);
void ep_route_free_derived(struct ep_chain *c);

/* reply.c */
void ep_stream_say_last_words(struct ep_stream *s); /* of a response that ends midway: what passed is out */
void ep_reply_run(struct ep_stream *s);          /* the deferred part of ep_stream_reply */
void ep_refusal_deliver(struct ep_stream *s);    /* the refusal that waited for its record */
void ep_stream_unaudited(struct ep_stream *s);   /* its record is lost and must not be: refused for that */
void ep_refusal_unaudited(struct ep_refusal *r);

#endif
