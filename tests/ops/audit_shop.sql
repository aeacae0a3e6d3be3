-- A small shop in which every invariant holds. :name stands for an order's id (test_audit.py).

INSERT INTO products VALUES
  ('card', 'Card', 'card', 'Brand', 'text', 500, 1000, 'EUR', NULL, NULL, 3, 'card.svg', false, 1);
INSERT INTO orders (id, user_id, sku, quantity, amount_cents, currency, email, phone, state, round, provider,
                    created_at, expires_at, next_poll_at) VALUES
  (:delivered, 'ann', 'card', 2, 1000, 'EUR', 'a@example.org', '+4930123456', 'delivered', 1, 'sandbox', now(), now(), now()),
  (:pending,   'ann', 'card', 1,  500, 'EUR', 'a@example.org', '', 'pending',   2, 'sandbox', now(), now(), now()),
  (:expired,   'bob', 'card', 1,  500, 'EUR', 'b@example.org', '', 'expired',   3, 'sandbox', now(), now(), now()),
  (:refunded,  'eve', 'card', 1,  500, 'EUR', 'e@example.org', '', 'refunded',  4, 'sandbox', now(), now(), now());
INSERT INTO cards (id, sku, state, order_id, key_id, secret, fingerprint) VALUES
  (1, 'card', 'delivered', :delivered, 'k1', '', '1'), (2, 'card', 'delivered', :delivered, 'k1', '', '2'),
  (3, 'card', 'held', :pending, 'k1', '', '3'), (4, 'card', 'available', NULL, 'k1', '', '4'),
  (5, 'card', 'available', NULL, 'k1', '', '5'), (6, 'card', 'disabled', NULL, 'k1', '', '6');
INSERT INTO card_changes (action, sku, cards, actor, reason) VALUES ('import', 'card', 4, 'seed', ''), ('import', 'card', 2, 'ann', ''),
  ('disable', 'card', 1, 'ann', 'burnt');
INSERT INTO deliveries (card_id, order_id) VALUES (1, :delivered), (2, :delivered);
INSERT INTO outbox (card_id, order_id, recipient, reference, state, sent_at, error) VALUES
  (1, :delivered, 'a@example.org', 'd', 'sent', now(), NULL), (2, :delivered, 'a@example.org', 'd', 'dead', NULL, 'no such box');
INSERT INTO outbox (card_id, order_id, recipient, reference, state, sent_at, channel) VALUES
  (1, :delivered, '+4930123456', 'd', 'sent', now(), 'sms');
INSERT INTO outbox (payment_id, order_id, recipient, reference, state, sent_at, occasion) VALUES
  ('pay3', :refunded, 'e@example.org', 'r', 'sent', now(), 'refunding');
INSERT INTO payments (provider, payment_id, outcome, order_id, amount_cents, currency, disposition, source) VALUES
  ('sandbox', 'pay1', 'succeeded', :delivered, 1000, 'EUR', 'delivered', 'callback'),
  ('sandbox', 'pay2', 'failed',    :expired,    500, 'EUR', 'declined',  'callback'),
  ('sandbox', 'pay3', 'succeeded', :refunded,   500, 'EUR', 'refund',    'poll');
INSERT INTO refunds (provider, payment_id, order_id, amount_cents, currency, state, reason) VALUES
  ('sandbox', 'pay3', :refunded, 500, 'EUR', 'refunded', 'no stock');
INSERT INTO order_events (order_id, from_state, to_state, reason) VALUES
  (:delivered, NULL, 'pending', ''), (:delivered, 'pending', 'paid', ''), (:delivered, 'paid', 'delivered', ''),
  (:pending, NULL, 'pending', ''),
  (:expired, NULL, 'pending', ''), (:expired, 'pending', 'expired', ''),
  (:refunded, NULL, 'pending', ''), (:refunded, 'pending', 'expired', ''), (:refunded, 'expired', 'paid', ''),
  (:refunded, 'paid', 'refunding', ''), (:refunded, 'refunding', 'refunded', '');
INSERT INTO dead_letters (stream, entry_id, order_id, fields, error) VALUES
  ('{stock}:orders', '1-1', :dead, '{}', 'unknown sku');
UPDATE stock_epoch SET epoch = 7;
