/* The protocol names that ephor offers by ALPN (RFC 7301), in one place. */
#ifndef EP_NET_ALPN_H
#define EP_NET_ALPN_H

#define EP_ALPN_H2    "h2"
#define EP_ALPN_HTTP1 "http/1.1"
#define EP_ALPN_TCP   "ephor-tcp" /* opaque bytes between two ephors */

#endif
