/* http: the header table and the codecs (h2 by nghttp2, h1 by llhttp, tcp), behind one interface (leg.h).
 *
 * Below: net, base. A codec turns bytes into messages and back, enforces the protocol and its limits, and
 * knows nothing of routes, filters or clusters. */
#ifndef EP_HTTP_HTTP_H
#define EP_HTTP_HTTP_H

#include "http/headers.h"
#include "http/leg.h"

#endif
