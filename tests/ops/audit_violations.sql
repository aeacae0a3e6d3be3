-- One violation of an invariant each, seeded into audit_shop.sql by hand.

-- I1 a card in no known state
ALTER TABLE cards DROP CONSTRAINT cards_state_check;
UPDATE cards SET state = 'lost' WHERE id = 6;

-- I1 a card that vanished
DELETE FROM cards WHERE id = 6;

-- I1 a card held for an order that is over
UPDATE cards SET state = 'held', order_id = :expired WHERE id = 6;

-- I1 a pending order without its card
UPDATE cards SET state = 'disabled', order_id = NULL WHERE id = 3;

-- I2 a card that Redis does not know
INSERT INTO cards (id, sku, state, key_id, secret, fingerprint) VALUES (9, 'card', 'available', 'k', '', '9');

-- I2 another epoch
UPDATE stock_epoch SET epoch = 8;

-- I3 a delivered card taken back
UPDATE cards SET state = 'disabled', order_id = NULL WHERE id = 1;

-- I4 a card delivered twice
ALTER TABLE outbox DROP CONSTRAINT outbox_card_id_fkey;
ALTER TABLE deliveries DROP CONSTRAINT deliveries_pkey;
INSERT INTO deliveries (card_id, order_id) VALUES (1, :delivered);

-- I4 half a delivery
DELETE FROM outbox WHERE card_id = 1;
DELETE FROM deliveries WHERE card_id = 1;

-- I5 a capture that paid for nothing
DELETE FROM refunds;

-- I5 a delivery nobody paid for
DELETE FROM payments WHERE payment_id = 'pay1';

-- I5 a delivery that was refunded too
INSERT INTO refunds (provider, payment_id, order_id, amount_cents, currency, state, reason) VALUES ('sandbox', 'pay1', :delivered, 1000, 'EUR', 'pending', '');

-- I5 a wrong amount
UPDATE payments SET amount_cents = 1 WHERE payment_id = 'pay1';

-- I5 a refund of what was never captured
DELETE FROM payments WHERE payment_id = 'pay3';

-- I5 a refund of another order's money
UPDATE refunds SET order_id = :expired;

-- I5 an order called refunded whose money never left
UPDATE refunds SET state = 'requested';

-- I5 an order on its way back without a refund
UPDATE orders SET state = 'refunding' WHERE id = :expired;

-- I6 a success of a provider whose ledger nobody read
UPDATE payments SET provider = 'stripe' WHERE payment_id = 'pay1';

-- I6 an unpaid order of a provider whose ledger nobody read
UPDATE orders SET provider = 'stripe' WHERE id = :expired;

-- I6 another currency than the provider's
UPDATE payments SET currency = 'USD' WHERE payment_id = 'pay1';

-- I6 a refund called failed that reached the buyer
UPDATE refunds SET state = 'failed';

-- I6 a success the provider never had
INSERT INTO payments VALUES ('sandbox', 'forged', 'succeeded', :refunded, 500, 'EUR', 'refund', 'callback');
INSERT INTO refunds (provider, payment_id, order_id, amount_cents, currency, state, reason) VALUES ('sandbox', 'forged', :refunded, 500, 'EUR', 'pending', '');

-- I7 an accepted order that is lost
DELETE FROM dead_letters WHERE order_id = :dead;

-- I7 a lost order for which only a callback was given up
UPDATE dead_letters SET stream = '{stock}:callbacks';

-- I7 a replayed order that never arrived
UPDATE dead_letters SET replayed_at = now();

-- I8 an expired order that keeps a card
UPDATE cards SET state = 'held', order_id = :expired WHERE id = 4;

-- I9 more than the cap
UPDATE products SET per_user_cap = 2;

-- I10 a dead letter without a reason
UPDATE dead_letters SET error = '';

-- I10 an order given up and written all the same
UPDATE dead_letters SET order_id = :pending;

-- I11 a delivery told to a stranger
UPDATE outbox SET recipient = 'x@example.org' WHERE card_id = 2;

-- I11 a message told twice
ALTER TABLE outbox DROP CONSTRAINT outbox_card_once;
INSERT INTO outbox (card_id, order_id, recipient, reference, state, sent_at) VALUES (1, :delivered, 'a@example.org', 'e', 'sent', now());

-- I11 a text message that was never written
DELETE FROM outbox WHERE channel = 'sms';

-- I11 a refund nobody was told about
DELETE FROM outbox WHERE payment_id = 'pay3';

-- I11 a message about a card of somebody else
UPDATE outbox SET order_id = :expired, recipient = 'b@example.org' WHERE card_id = 2;

-- I11 given up for no reason
UPDATE outbox SET error = NULL WHERE card_id = 2;

-- I11 sent, and nobody knows when
UPDATE outbox SET sent_at = NULL WHERE card_id = 1;

-- I11 a delivery nobody was told about
DELETE FROM outbox WHERE card_id = 1;

-- I11 a mail that never left
UPDATE outbox SET state = 'pending' WHERE card_id = 1;

-- I12 a forbidden step
INSERT INTO order_events (order_id, from_state, to_state, reason) VALUES (:pending, 'pending', 'delivered', ''), (:pending, 'delivered', 'pending', '');

-- I12 a history with a gap
DELETE FROM order_events WHERE order_id = :expired AND to_state = 'pending';

-- I12 a history that ends elsewhere
UPDATE orders SET state = 'expired' WHERE id = :refunded;

-- I12 two refunds of one payment
ALTER TABLE refunds DROP CONSTRAINT refunds_pkey;
INSERT INTO refunds SELECT * FROM refunds;
