-- What was answered 202 while the volatile Redis took no second copy (stock/second_copy.py); kept for an hour.

CREATE TABLE order_copies (
    order_id uuid PRIMARY KEY,
    fields jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX order_copies_at ON order_copies (at);
