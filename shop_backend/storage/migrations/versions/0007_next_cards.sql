-- `ORDER BY id LIMIT n` of one product's cards could also go along the primary key, past every card that was
-- ever delivered; and it did where one product has most of the cards. Nothing but this index is in order of
-- (id + 0): shop_backend/delivery.py.

CREATE INDEX cards_next ON cards (sku, (id + 0)) WHERE state = 'available';
DROP INDEX cards_available;
