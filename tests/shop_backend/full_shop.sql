-- A shop of long ago, far bigger than what a planner would rather read as a whole: orders mostly delivered, some
-- expired for good, some refunded, each with what belongs to it. Most of the cards are one product's.

-- Without checking foreign keys, which hold, this is a hundred times faster.
SET session_replication_role = replica;
INSERT INTO orders (id, user_id, sku, quantity, amount_cents, currency, email, state, round, provider,
                    checkout_id, created_at, expires_at, closed_at, next_poll_at, next_checkout_at)
SELECT ('00000000-0001-8000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'u' || n / 3,
       CASE n % 50 WHEN 7 THEN 'plain' ELSE 'over' END, 1, 1000, 'EUR',
       'x@example.org', CASE n % 10 WHEN 0 THEN 'expired' WHEN 1 THEN 'refunded' ELSE 'delivered' END, n,
       'sandbox', 'c' || n, now() - interval '1 day', now() - interval '1 day', now(),
       CASE n % 10 WHEN 0 THEN '9000-01-01'::timestamptz ELSE now() END, now() FROM generate_series(1, 50000) n;
CREATE TEMP VIEW filler AS SELECT * FROM orders WHERE email = 'x@example.org';
INSERT INTO order_events (order_id, from_state, to_state, reason)
SELECT id, NULL, 'pending', '' FROM filler;
INSERT INTO order_events (order_id, from_state, to_state, reason)
SELECT id, 'pending', state, '' FROM filler;
INSERT INTO cards (sku, state, order_id, key_id, secret, fingerprint)
SELECT 'plain', 'delivered', id, 'k1', '', decode(md5(id::text), 'hex') FROM filler WHERE state = 'delivered';
INSERT INTO cards (sku, state, key_id, secret, fingerprint)
SELECT 'plain', 'available', 'k1', '', decode(md5('free' || n), 'hex') FROM generate_series(1, 50000) n;
INSERT INTO deliveries (card_id, order_id) SELECT c.id, c.order_id FROM cards c JOIN filler f ON f.id = c.order_id;
INSERT INTO payments (provider, payment_id, outcome, order_id, amount_cents, currency, disposition, source)
SELECT 'sandbox', 'p' || id, 'succeeded', id, 1000, 'EUR',
       CASE state WHEN 'delivered' THEN 'delivered' ELSE 'refund' END, 'callback'
FROM filler WHERE state <> 'expired';
INSERT INTO refunds (provider, payment_id, order_id, amount_cents, currency, state, reason)
SELECT provider, 'p' || id, id, amount_cents, currency, 'refunded', '' FROM filler WHERE state = 'refunded';
INSERT INTO outbox (card_id, order_id, recipient, reference, state, sent_at)
SELECT d.card_id, id, email, id || '-delivered', 'sent', now() FROM filler JOIN deliveries d ON d.order_id = id;
INSERT INTO outbox (payment_id, order_id, recipient, reference, state, sent_at, occasion)
SELECT 'p' || id, id, email, id || '-refunding', 'sent', now(), 'refunding' FROM filler WHERE state = 'refunded';
INSERT INTO dead_letters (stream, entry_id, order_id, fields, error)
SELECT '{stock}:orders', n || '-1', gen_random_uuid(), '{}', 'x' FROM generate_series(1, 25000) n;
