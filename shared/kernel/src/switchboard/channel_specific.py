"""Messages that only one channel knows: what `channel_specific_message` holds (conversation-api 5.11)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeAlias

from switchboard.identity import ChannelName
from switchboard.wire import Wire


class Words(Wire, frozen=True):
    text: str


class Link(Wire, frozen=True):
    link: str


class TextHeader(Wire, frozen=True, tag_field="type", tag="text"):
    text: str


class ImageHeader(Wire, frozen=True, tag_field="type", tag="image"):
    image: Link


class DocumentHeader(Wire, frozen=True, tag_field="type", tag="document"):
    document: Link


class VideoHeader(Wire, frozen=True, tag_field="type", tag="video"):
    video: Link


Header: TypeAlias = TextHeader | ImageHeader | DocumentHeader | VideoHeader


class FlowMode(StrEnum):
    DRAFT = "draft"
    PUBLISHED = "published"


class FlowAction(StrEnum):
    NAVIGATE = "navigate"
    DATA_EXCHANGE = "data_exchange"


class FlowActionPayload(Wire, frozen=True):
    screen: str | None = None
    data: dict[str, Any] | None = None


class Flow(Wire, frozen=True):
    """A WhatsApp flow."""

    flow_id: str
    #: The button's caption: at most 20 characters.
    flow_cta: str
    flow_token: str | None = None
    flow_mode: FlowMode | None = None
    flow_action: FlowAction | None = None
    flow_action_payload: FlowActionPayload | None = None
    header: Header | None = None
    body: Words | None = None
    footer: Words | None = None


class PaymentType(StrEnum):
    BRAZIL = "br"
    SINGAPORE = "sg"


class GoodsType(StrEnum):
    DIGITAL = "digital-goods"
    PHYSICAL = "physical-goods"


class PixKeyType(StrEnum):
    CPF = "CPF"
    CNPJ = "CNPJ"
    EMAIL = "EMAIL"
    PHONE = "PHONE"
    EVP = "EVP"


class DynamicPix(Wire, frozen=True):
    code: str
    merchant_name: str
    key: str
    key_type: PixKeyType


class PixButton(Wire, frozen=True, tag_field="type", tag="pix_dynamic_code"):
    code: str
    merchant_name: str
    key: str
    key_type: PixKeyType


class PaymentLinkButton(Wire, frozen=True, tag_field="type", tag="payment_link"):
    uri: str


class BoletoButton(Wire, frozen=True, tag_field="type", tag="boleto"):
    digitable_line: str


class PaymentSettings(Wire, frozen=True):
    """Deprecated in favour of the buttons."""

    dynamic_pix: DynamicPix | None = None


class OrderItem(Wire, frozen=True):
    retailer_id: str
    name: str
    #: In the currency's smallest unit.
    amount_value: int
    quantity: int
    sale_amount_value: int | None = None


class Order(Wire, frozen=True):
    """Amounts are in the currency's smallest unit."""

    subtotal_value: int
    tax_value: int
    items: tuple[OrderItem, ...]
    catalog_id: str | None = None
    #: Unix time in seconds, as text, at least 300 s ahead.
    expiration_time: str | None = None
    expiration_description: str | None = None
    tax_description: str | None = None
    shipping_value: int | None = None
    shipping_description: str | None = None
    discount_value: int | None = None
    discount_description: str | None = None
    discount_program_name: str | None = None


class OrderDetailsPayment(Wire, frozen=True):
    type: PaymentType
    reference_id: str
    type_of_goods: GoodsType
    total_amount_value: int
    order: Order
    payment_buttons: tuple[PixButton | PaymentLinkButton | BoletoButton, ...] = ()
    payment_settings: PaymentSettings | None = None


class OrderDetails(Wire, frozen=True):
    """What a person is asked to pay, on WhatsApp."""

    payment: OrderDetailsPayment
    header: Header | None = None
    body: Words | None = None
    footer: Words | None = None


class OrderState(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    PARTIALLY_SHIPPED = "partially-shipped"
    SHIPPED = "shipped"
    COMPLETED = "completed"
    CANCELED = "canceled"


class OrderProgress(Wire, frozen=True):
    status: OrderState
    #: At most 120 characters.
    description: str | None = None


class OrderStatusPayment(Wire, frozen=True):
    reference_id: str
    order: OrderProgress


class OrderStatus(Wire, frozen=True):
    """How an order goes on, on WhatsApp."""

    payment: OrderStatusPayment
    header: Header | None = None
    body: Words | None = None
    footer: Words | None = None


class WebLinkButton(Wire, frozen=True, tag_field="type", tag="WL"):
    name: str
    link_mo: str
    link_pc: str | None = None


class AppLinkButton(Wire, frozen=True, tag_field="type", tag="AL"):
    name: str
    scheme_ios: str
    scheme_android: str


class BotKeywordButton(Wire, frozen=True, tag_field="type", tag="BK"):
    name: str


KakaoButton: TypeAlias = WebLinkButton | AppLinkButton | BotKeywordButton


class KakaoImage(Wire, frozen=True):
    image_url: str
    image_link: str | None = None


class RegularPrice(Wire, frozen=True, tag_field="type", tag="REGULAR_PRICE_COMMERCE"):
    title: str
    regular_price: int


class FixedDiscount(Wire, frozen=True, tag_field="type", tag="FIXED_DISCOUNT_COMMERCE"):
    title: str
    regular_price: int
    discount_price: int
    discount_fixed: int


class PercentageDiscount(Wire, frozen=True, tag_field="type", tag="PERCENTAGE_DISCOUNT_COMMERCE"):
    title: str
    regular_price: int
    discount_price: int
    discount_rate: int


class CouponBase(Wire, frozen=True, tag_field="type", kw_only=True):
    """What all coupons may say."""

    description: str | None = None
    link_mo: str | None = None
    link_pc: str | None = None
    scheme_ios: str | None = None
    scheme_android: str | None = None


class FixedDiscountCoupon(CouponBase, frozen=True, tag="FIXED_DISCOUNT_COUPON", kw_only=True):
    discount_fixed: int


class PercentageDiscountCoupon(CouponBase, frozen=True, tag="PERCENTAGE_DISCOUNT_COUPON", kw_only=True):
    discount_rate: int


class ShippingDiscountCoupon(CouponBase, frozen=True, tag="SHIPPING_DISCOUNT_COUPON", kw_only=True):
    pass


class FreeCoupon(CouponBase, frozen=True, tag="FREE_COUPON", kw_only=True):
    title: str


class UpCoupon(CouponBase, frozen=True, tag="UP_COUPON", kw_only=True):
    title: str


Coupon: TypeAlias = FixedDiscountCoupon | PercentageDiscountCoupon | ShippingDiscountCoupon | FreeCoupon | UpCoupon


class CommerceCard(Wire, frozen=True):
    image: KakaoImage
    buttons: tuple[KakaoButton, ...]
    commerce: RegularPrice | FixedDiscount | PercentageDiscount | None = None
    coupon: Coupon | None = None
    additional_content: str | None = None


class Commerce(Wire, frozen=True):
    """Goods on KakaoTalk: one card."""

    image: KakaoImage
    buttons: tuple[KakaoButton, ...]
    push_alarm: bool | None = None
    adult: bool | None = None
    commerce: RegularPrice | FixedDiscount | PercentageDiscount | None = None
    coupon: Coupon | None = None
    additional_content: str | None = None


class CarouselHead(Wire, frozen=True):
    header: str
    content: str
    image_url: str
    link_mo: str | None = None
    link_pc: str | None = None
    scheme_ios: str | None = None
    scheme_android: str | None = None


class CarouselTail(Wire, frozen=True):
    link_mo: str
    link_pc: str | None = None
    scheme_ios: str | None = None
    scheme_android: str | None = None


class CommerceCarousel(Wire, frozen=True):
    list: tuple[CommerceCard, ...]
    head: CarouselHead | None = None
    tail: CarouselTail | None = None


class CarouselCommerce(Wire, frozen=True):
    """Goods on KakaoTalk: several cards."""

    carousel: CommerceCarousel
    push_alarm: bool | None = None
    adult: bool | None = None


class LineItem(Wire, frozen=True):
    item_key: str
    content: str


class LineButton(Wire, frozen=True):
    button_key: str
    url: str


class LineTemplateBody(Wire, frozen=True):
    emphasized_item: LineItem | None = None
    items: tuple[LineItem, ...] = ()
    buttons: tuple[LineButton, ...] = ()


class LineNotificationTemplate(Wire, frozen=True):
    template_key: str
    body: LineTemplateBody | None = None


class FlowsMessage(Wire, frozen=True, tag_field="message_type", tag="FLOWS"):
    message: Flow


class OrderDetailsMessage(Wire, frozen=True, tag_field="message_type", tag="ORDER_DETAILS"):
    message: OrderDetails


class OrderStatusMessage(Wire, frozen=True, tag_field="message_type", tag="ORDER_STATUS"):
    message: OrderStatus


class CommerceMessage(Wire, frozen=True, tag_field="message_type", tag="COMMERCE"):
    message: Commerce


class CarouselCommerceMessage(Wire, frozen=True, tag_field="message_type", tag="CAROUSEL_COMMERCE"):
    message: CarouselCommerce


class LineNotificationMessage(Wire, frozen=True, tag_field="message_type", tag="NOTIFICATION_MESSAGE_TEMPLATE"):
    message: LineNotificationTemplate


ChannelSpecificMessage: TypeAlias = (
    FlowsMessage
    | OrderDetailsMessage
    | OrderStatusMessage
    | CommerceMessage
    | CarouselCommerceMessage
    | LineNotificationMessage
)

#: The channel that knows each kind.
SPECIFIC_TO: Final[Mapping[type, ChannelName]] = {
    FlowsMessage: ChannelName("WHATSAPP"),
    OrderDetailsMessage: ChannelName("WHATSAPP"),
    OrderStatusMessage: ChannelName("WHATSAPP"),
    CommerceMessage: ChannelName("KAKAOTALK"),
    CarouselCommerceMessage: ChannelName("KAKAOTALK"),
    LineNotificationMessage: ChannelName("LINE"),
}
